"""Measure a Python program and ship the numbers to Graphite."""
