"""Conversion of raw releases of ScanNet and S3DIS to the layout of the readers."""
