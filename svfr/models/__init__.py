"""The networks of SVFR."""
