"""From raw footage to a training manifest; `prepare.py` is the command, README.md the guide."""
