"""The command line `structsparse`."""
