"""A real carbon for the faults, too."""

from tests.end_to_end.conftest import start_carbon as start_carbon
