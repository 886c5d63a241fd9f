"""Rooms: labelled furnished rooms in the layout of processed ScanNet."""
