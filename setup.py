"""All metadata is in setup.cfg; this file is for what only code can say: which C extensions to try."""

from setuptools import setup

setup()
