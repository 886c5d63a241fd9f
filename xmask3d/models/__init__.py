"""Networks, one file a part."""
