"""Reading of a user's own scan: detection of its format, checks, and conversion to points and posed views."""
