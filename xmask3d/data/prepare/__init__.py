"""From raw releases of ScanNet and S3DIS to the layout that the readers read."""
