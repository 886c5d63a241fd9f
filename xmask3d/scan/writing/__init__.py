"""Writers that give a scan's own file back with labels: everything it held is kept, fields are added."""
