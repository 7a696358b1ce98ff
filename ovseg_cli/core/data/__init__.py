"""Data sets: specs, preparation, reading, and the toy world."""
