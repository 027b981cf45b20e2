"""Data sets as arrays and as streams of images."""
