"""Tests of the other data sets."""
