"""From lines to aggregates: what one listener heard since the registry last asked; the twin that is in use.

:mod:`~.intake_in_python` is the specification.
"""

from typing import TYPE_CHECKING

from metricslib._accelerate import load

from .intake_in_python import IntakeInPython

__all__ = ["Intake"]

if TYPE_CHECKING or load("forwarder._intake") is None:
    Intake = IntakeInPython
else:
    from .intake_in_c import IntakeInC as Intake
