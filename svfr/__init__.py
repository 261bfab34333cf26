"""SVFR: unified video face restoration."""
