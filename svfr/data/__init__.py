"""Frames, faces and videos: everything between files and tensors."""
