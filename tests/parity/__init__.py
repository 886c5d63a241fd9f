"""Tools for checking numerically that parts compute what the published method computes."""
