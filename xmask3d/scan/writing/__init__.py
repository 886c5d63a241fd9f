"""Writers of a scan's own file with labels: its content is kept, and fields are added."""
