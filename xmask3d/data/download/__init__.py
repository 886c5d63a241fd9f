"""Downloads by name, which are resumable, verified, and unpacked only inside their folder."""
