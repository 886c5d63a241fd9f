"""Reading of a user's own scan: detection of its form, checks, and conversion to points and posed views."""
