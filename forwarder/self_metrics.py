"""The forwarder's own metrics: the account of everything that came in, as series and as sections of the page.

Every tick's window holds an account that balances exactly, of the very pieces whose effect is in that window. The names
stand behind ``statsd.``, or what it is called instead::

    pieces_received = pieces_aggregated + bad_lines_seen + pieces_dropped.CAUSE…
    points_received = points_relayed + points_bad + points_dropped.CAUSE…

A piece is one ``value|type`` of a statsd line, a point one line of Graphite's. Beside these stand ``packets_received``
and ``metrics_received`` as statsd counts them, ``kernel_drops.LISTENER``, datagrams that the kernel had no room for,
``batches_repeated.LISTENER``, numbered batches that came again and were left out, and the gauge ``timestamp_lag``, by
how many seconds the last tick came late.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metricslib.series import Kind, sanitise
from metricslib.window import Aggregates, GaugeChange

from .aggregator import Intake
from .graphite import Relay
from .stats import BadLine, Counts

__all__ = ["Door", "OwnMetrics", "own_counters", "own_gauge"]

_SHOWN = 20
_EVENTS = {"kernel_dropped": "kernel_drops", "batches_repeated": "batches_repeated"}
"""What is told of each socket, and under which name."""


@dataclass(frozen=True, slots=True)
class Door:
    """One listener and what it feeds."""

    label: str
    """Its address as a URL, with the port it was given."""
    feed: Intake | Relay
    events: Callable[[], Mapping[str, int]] = dict
    """What happened to the socket since the start, by cause; ``kernel_dropped``: datagrams, ``batches_repeated``."""
    numbered: bool = False
    """Whether what comes in is collected together with the numbers of its batches."""

    @property
    def relays(self) -> bool:
        """Whether it takes Graphite's points, which pass by the windows."""
        return isinstance(self.feed, Relay)

    def account(self) -> Counts:
        """Return the account of what is in windows or was passed on."""
        return self.feed.counts() if isinstance(self.feed, Relay) else self.feed.collected()


def own_counters(prefix: str) -> tuple[str, ...]:
    """Return the keys of the counters that statsd has of itself. They stand before all others, and are never idle."""
    return tuple(f"{prefix}.{name}" for name in ("bad_lines_seen", "packets_received", "metrics_received"))


def own_gauge(prefix: str) -> str:
    """Return the key of the one gauge that statsd has of itself."""
    return f"{prefix}.timestamp_lag"


class OwnMetrics:
    """A source of the registry. It must be the last one, so that it speaks of what the others were just asked for.

    Without ``account`` it has only what statsd has of itself.
    """

    def __init__(self, prefix: str, doors: Sequence[Door], lag: Callable[[], float], *, account: bool = True) -> None:
        self._prefix = prefix
        self._doors = tuple(doors)
        self._lag = lag
        self._account = account
        self._before: Counter[str] | None = None

    def collect(self) -> Aggregates:
        """Return what happened since the last call. The lag is, as in statsd, there from the second call on."""
        aggregates = Aggregates()
        totals = Counter[str]()
        for key, total in self._totals():
            totals[key] += total
        before = self._before or Counter()
        for key, total in totals.items():
            aggregates.counters[key] = total - before[key]
        if self._before is not None:
            aggregates.gauges[own_gauge(self._prefix)] = GaugeChange(self._lag())
        self._before = totals
        return aggregates

    def forget(self, kind: Kind, key: str) -> None:
        """Nothing is kept that would have to be freed: there are few series here, and none is ever idle."""

    def _key(self, name: str) -> str:
        return f"{self._prefix}.{name}"

    def _totals(self) -> Iterator[tuple[str, int]]:
        pieces = sum((door.account() for door in self._doors if not door.relays), Counts())
        yield from zip(own_counters(self._prefix), (pieces.bad, pieces.packets, pieces.lines), strict=True)
        if self._account:
            yield from self._more(pieces)

    def _more(self, pieces: Counts) -> Iterator[tuple[str, int]]:
        yield self._key("pieces_received"), pieces.received
        yield self._key("pieces_aggregated"), pieces.aggregated
        for cause, count in pieces.dropped.items():
            yield self._key(f"pieces_dropped.{sanitise(cause)}"), count
        if any(door.relays for door in self._doors):
            points = sum((door.account() for door in self._doors if door.relays), Counts())
            yield self._key("points_received"), points.received
            yield self._key("points_relayed"), points.aggregated
            yield self._key("points_bad"), points.bad
            for cause, count in points.dropped.items():
                yield self._key(f"points_dropped.{sanitise(cause)}"), count
        for door in self._doors:
            for event, name in _EVENTS.items():
                if (times := door.events().get(event)) is not None:
                    label = re.sub(r"[^a-zA-Z0-9]+", "_", door.label).strip("_")
                    yield self._key(f"{name}.{label}"), times

    def sections(self) -> Mapping[str, Any]:
        """Return what the page shows of it, by title."""
        counts = [(door, door.feed.counts()) for door in self._doors]
        pieces = sum((count for door, count in counts if not door.relays), Counts())
        sections: dict[str, Any] = {
            "Listeners": [_listener(door, count) for door, count in counts],
            "Pieces": _account(pieces, "Aggregated"),
        }
        if any(door.relays for door in self._doors):
            sections["Graphite points"] = _account(
                sum((count for door, count in counts if door.relays), Counts()), "Relayed"
            )
        bad = sorted(((line, door.label) for door in self._doors for line in door.feed.bad_lines()), reverse=True)
        if bad:
            sections["Last bad lines"] = [_bad_line(line, label) for line, label in bad[:_SHOWN]]
        return sections


def _listener(door: Door, counts: Counts) -> Mapping[str, Any]:
    return {
        "Listener": door.label,
        "Packets": counts.packets,
        "Lines": counts.lines,
        "Received": counts.received,
        "Taken": counts.aggregated,
        "Bad": counts.bad,
        "Dropped": dict(counts.dropped),
        "Socket": dict(door.events()),
    }


def _account(counts: Counts, taken: str) -> Mapping[str, Any]:
    return {"Received": counts.received, taken: counts.aggregated, "Bad": counts.bad, "Dropped": dict(counts.dropped)}


def _bad_line(line: BadLine, label: str) -> Mapping[str, Any]:
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(line.time))
    return {"Time": moment, "Listener": label, "Line": line.text, "What is wrong": line.reason}
