"""Processes of one user on one host that ship the same thing: they share files, and one of them ships."""
