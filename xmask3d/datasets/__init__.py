"""Other data sets of indoor scenes, brought from the files of their releases into the layout of processed ScanNet."""
