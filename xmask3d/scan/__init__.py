"""Reading a user's own scan: finding out what it is, checking it, and turning it into points and posed views."""
