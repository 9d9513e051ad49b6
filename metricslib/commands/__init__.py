"""The command ``metricslib``: one parser, and a file for each sub-command."""

from .parser import main

__all__ = ["main"]
