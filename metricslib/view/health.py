"""What the view of health adds to the report: advice for each cause of drops, what is near a bound, and the process."""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..delivery.queue import ADVICE as DELIVERY_ADVICE
from ..flusher import Flusher, Measured
from ..history import HOUR
from ..registry import ADVICE, Registry
from ..series import KINDS, Kind
from .cards import Card, Span, card, metrics_of, since
from .figures import age, amount, size
from .report import TooSlow

__all__ = ["Dropped", "Health", "health"]

_NEAR = 0.8
"""The share of a cap from which on it is near."""
_BLOCK = 500
_ROWS = 10
_CHARTS = ("spool_bytes", "last_success_age", "points_sent", "bytes_sent", "points_dropped", "dropped")
"""The library's own metrics that show queues over time."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was dropped for one cause, and what to do about it."""

    where: str
    cause: str
    count: int
    advice: str


@dataclass(frozen=True, slots=True)
class Health:
    """What is shown beside the report."""

    dropped: Sequence[Dropped]
    near: Sequence[tuple[str, str, str]]
    """What is near a cap, how much there is of it, and the cap."""
    failing: Sequence[str]
    """Gauges whose callbacks failed in the last interval."""
    process: Sequence[tuple[str, str]]
    queues: Sequence[Card]


def health(flusher: Flusher, measured: Measured, in_time: Callable[[], bool] = lambda: True) -> Health:
    """Return it as of now. Raises :class:`~.report.TooSlow`."""
    registry = flusher.registry
    dropped = [Dropped("", cause, count, ADVICE.get(cause, "")) for cause, count in registry.drops.totals().items()]
    for destination in flusher.status().destinations:
        dropped += [
            Dropped(destination.label, cause, count, re.sub(r"\{[^}]*\}s?", "…", DELIVERY_ADVICE.get(cause, "")))
            for cause, count in destination.dropped.items()
        ]
    return Health(
        [each for each in dropped if each.count],
        _near(registry, in_time),
        registry.failing[:_ROWS],
        _process(),
        _queues(flusher.own, measured),
    )


def _near(registry: Registry, in_time: Callable[[], bool]) -> list[tuple[str, str, str]]:
    series = registry.series()
    total = sum(map(len, series.values()))
    found = [("series", total, registry.max_series)]
    for kind in KINDS:
        names: Counter[str] = Counter()
        rest = iter(series[kind])
        while block := list(islice(rest, _BLOCK)):
            if not in_time():
                raise TooSlow
            names.update(key.partition(";")[0] for key in block if ";" in key)
        found += [(f"tag sets of {name}", count, registry.max_tag_sets) for name, count in names.most_common(_ROWS)]
    return [(what, amount(count), amount(cap)) for what, count, cap in found if count >= _NEAR * cap]


def _process() -> list[tuple[str, str]]:
    found = [("Process", str(os.getpid())), ("CPU time", age(time.process_time()))]
    with suppress(OSError, ValueError, IndexError):  # Linux alone has /proc
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found.append(("Resident", size(pages * os.sysconf("SC_PAGE_SIZE"))))
    found.append(("Threads", amount(threading.active_count())))
    with suppress(OSError):
        found.append(("Open files", amount(len(os.listdir("/proc/self/fd")))))
    return found


def _queues(own: str, measured: Measured) -> list[Card]:
    history = measured.history
    if history.last is None or not own:
        return []
    names = {f"{own}.{name}": place for place, name in enumerate(_CHARTS)}
    series: Mapping[Kind, Sequence[str]] = {
        kind: [key for key in keys if key.partition(";")[0] in names]
        for kind, keys in measured.registry.series().items()
    }
    metrics = sorted(metrics_of(series), key=lambda metric: names[metric.name])
    span = Span(since(history, HOUR), history.last.end)
    return [card(metric, history, span) for metric in metrics]
