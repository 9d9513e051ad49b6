"""Endless tests: ``make fuzz SECONDS=600``."""
