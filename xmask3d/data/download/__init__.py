"""Downloads by name: resumable, verified, unpacked without escaping their folder."""
