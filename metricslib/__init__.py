"""Measure a Python program and send the measurements to Graphite.

::

    import metricslib as metrics

    hits = metrics.counter("web.hits")
    hits.inc()

    @metrics.timed
    def work(): ...

    metrics.start("graphite://graphite.example:2003", prefix="shop.web1")

Instruments are counters, gauges, timers, histograms and uniques. A call on an instrument does no I/O, waits for no lock
and never raises an exception for a bad value. Every ten seconds, a background thread ends the interval and sends its
aggregates, with the names of statsd. The functions of this module use a default registry. To have your own, create a
:class:`Registry` and a :class:`Flusher`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._default import (
    count_exceptions,
    counted,
    counter,
    default_registry,
    gauge,
    histogram,
    in_progress,
    scope,
    timed,
    timer,
    unique,
)
from ._scope import Scope
from .decorators import SlowCall
from .errors import AlreadyStarted, CannotListen, InvalidDestination, InvalidOption, InvalidType, MetricsError
from .hints import NAMES, missing
from .instruments.counter import Counter
from .instruments.gauge import Gauge
from .instruments.histogram import Histogram
from .instruments.timer import Span, Timer
from .instruments.unique import Unique
from .registry import Registry
from .series import add_tags, drop, keep, rename

if TYPE_CHECKING:
    from ._shipping import flush as flush
    from ._shipping import start as start
    from ._shipping import stop as stop
    from .flusher import Flusher as Flusher
    from .view import serve as serve
    from .view.boards import board as board

    __version__: str

__all__ = [
    "AlreadyStarted",
    "CannotListen",
    "Counter",
    "Flusher",
    "Gauge",
    "Histogram",
    "InvalidDestination",
    "InvalidOption",
    "InvalidType",
    "MetricsError",
    "Registry",
    "Scope",
    "SlowCall",
    "Span",
    "Timer",
    "Unique",
    "add_tags",
    "board",
    "count_exceptions",
    "counted",
    "counter",
    "default_registry",
    "drop",
    "flush",
    "gauge",
    "histogram",
    "in_progress",
    "keep",
    "rename",
    "runtime",
    "scope",
    "serve",
    "start",
    "stop",
    "timed",
    "timer",
    "unique",
    "view",
]


_LATER = {
    "start": "._shipping",
    "flush": "._shipping",
    "stop": "._shipping",
    "Flusher": ".flusher",
    "serve": ".view",
    "board": ".view.boards",
}

if not TYPE_CHECKING:  # so that type checkers report names that are not in __all__

    def __getattr__(name: str) -> object:
        """Import flusher and page at first use, because measuring needs neither."""
        if name in _LATER:
            found = globals()[name] = getattr(import_module(_LATER[name], __name__), name)
            return found
        if name in ("runtime", "view"):
            return import_module(f".{name}", __name__)
        if name == "__version__":
            return import_module("importlib.metadata").version("metricslib")
        raise missing(__name__, name, NAMES.get(name), __all__)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
