"""Faults injected into every file that the program writes or reads."""
