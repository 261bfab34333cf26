"""Restoring: from frames to frames, from a file to a file, from a folder to a folder."""
