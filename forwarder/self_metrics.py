"""The forwarder's own metrics: the counts of all input, as series and as sections of the page.

The counts balance exactly in every window, because they cover exactly the samples whose values are in that window. The
names begin with ``statsd.``, or the configured prefix::

    pieces_received = pieces_aggregated + bad_lines_seen + pieces_dropped.CAUSE…
    points_received = points_relayed + points_bad + points_dropped.CAUSE…

A piece is a sample, one ``value|type`` of a statsd line; a point is one Graphite line. There are further metrics:

* ``packets_received`` and ``metrics_received``, as in statsd;
* ``kernel_drops.LISTENER``, datagrams dropped by the kernel;
* ``batches_repeated.LISTENER``, repeated numbered batches;
* ``timestamp_lag``, a gauge: the delay of the last tick in seconds.
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.drops import DropLog
from metricslib.series import Kind, sanitise
from metricslib.window import Aggregates, GaugeChange

from .aggregator import Aggregator
from .graphite import Relay
from .stats import BadLine, Counts

__all__ = ["Input", "SelfMetrics", "own_counters", "own_gauge"]

log = logging.getLogger("forwarder")

_SHOWN = 20
_CONNECTIONS = "all connections were in use: close idle ones; raise ulimit -Hn if it allows fewer than 1,024"
_ADVICE = {
    "event": "events of DogStatsD are not metrics: switch them off in the client",
    "service_check": "service checks of DogStatsD are not metrics: switch them off in the client",
    "unique_full": "send fewer different members of a set in an interval (100,000 at most), or raise max_bytes",
    "out_of_memory": "give the forwarder more memory, or lower max_bytes",
    "line_too_long": "a line in a stream may have 8,192 bytes, and the console's commands 4,096: send shorter ones",
    "batch_too_long": "a batch may have 262,144 bytes: send smaller ones",
    "cut_off": "connections were reset in the middle of a line: shut them down before closing",
    "truncated": "a datagram may have 256 KiB: send smaller ones",
    "not_finite": "send finite numbers",
    "relay_error": "the log has the exception; please report it",
    "kernel_dropped": "raise receive_buffer and net.core.rmem_max, or udp_threads, or send over a stream",
    "connections_evicted": _CONNECTIONS,
    "connections_refused": _CONNECTIONS,
    "foreign_protocol": "these connections began with HTTP or binary data: find out which program connects here",
    "no_batch": "these connections sent no numbered batches: send statsd lines to another listener",
    "answers_unread": "these connections were closed because the peer did not read the answers",
}
"""Advice by cause. The registry itself warns of ``overflow_dropped``, and ``filtered`` needs no warning."""
_EVENTS = {"kernel_dropped": "kernel_drops", "batches_repeated": "batches_repeated"}
"""The events of each socket that are sent as metrics, with the names of the metrics."""


@dataclass(frozen=True, slots=True)
class Input:
    """A listener and its aggregator or relay."""

    label: str
    """The bound address as a URL."""
    feed: Aggregator | Relay
    events: Callable[[], Mapping[str, int]] = dict
    """Returns the number of events on the socket since the start, such as ``kernel_dropped``."""
    numbered: bool = False
    """True for numbered batches, which are collected together with their numbers."""

    @property
    def relays(self) -> bool:
        """True for Graphite points, which are not part of windows."""
        return isinstance(self.feed, Relay)

    def drops(self) -> Mapping[str, int]:
        """Return drops and other events since the start, of the socket and of the aggregator, by cause."""
        return {**self.events(), **self.feed.counts().dropped}

    def account(self) -> Counts:
        """Return the counts of the data that is in windows or was passed on."""
        return self.feed.counts() if isinstance(self.feed, Relay) else self.feed.collected()


def own_counters(prefix: str) -> tuple[str, ...]:
    """Return the keys of the counters that statsd also sends about itself. They come first and are never idle."""
    return tuple(f"{prefix}.{name}" for name in ("bad_lines_seen", "packets_received", "metrics_received"))


def own_gauge(prefix: str) -> str:
    """Return the key of the gauge that statsd also sends about itself."""
    return f"{prefix}.timestamp_lag"


class SelfMetrics:
    """A source of the registry. It must be the last one, so that it counts the data just collected from the others.

    Without ``account``, it has only the metrics that statsd also sends about itself. At each collection, it logs a
    warning for drops at the inputs and for drops that the functions in ``others`` count, under their names.
    """

    def __init__(
        self,
        prefix: str,
        inputs: Sequence[Input],
        lag: Callable[[], float],
        *,
        account: bool = True,
        others: Mapping[str, Callable[[], Mapping[str, int]]] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._prefix = prefix
        self._inputs = tuple(inputs)
        self._lag = lag
        self._account = account
        self._before: Counter[str] | None = None
        self._counts: list[tuple[str, DropLog, Callable[[], Mapping[str, int]]]] = [
            *((one.label, DropLog(clock), one.drops) for one in inputs),
            *((name, DropLog(clock), counts) for name, counts in (others or {}).items()),
        ]

    def collect(self) -> Aggregates:
        """Return the metrics since the last call. As in statsd, the lag appears from the second call on."""
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
        self._warn_of_drops()
        return aggregates

    def _warn_of_drops(self) -> None:
        for label, drop_log, counts in self._counts:
            totals = {cause: count for cause, count in counts().items() if cause in _ADVICE}
            for cause, count in drop_log.due(totals):
                log.warning("%s: %d dropped, cause %s: %s", label, count, cause, _ADVICE[cause])

    def forget(self, kind: Kind, key: str) -> None:
        """Do nothing: there are few series, and they never expire."""

    def _key(self, name: str) -> str:
        return f"{self._prefix}.{name}"

    def _totals(self) -> Iterator[tuple[str, int]]:
        samples = sum((one.account() for one in self._inputs if not one.relays), Counts())
        yield from zip(own_counters(self._prefix), (samples.bad, samples.packets, samples.lines), strict=True)
        if self._account:
            yield from self._more(samples)

    def _more(self, samples: Counts) -> Iterator[tuple[str, int]]:
        yield self._key("pieces_received"), samples.received
        yield self._key("pieces_aggregated"), samples.aggregated
        for cause, count in samples.dropped.items():
            yield self._key(f"pieces_dropped.{sanitise(cause)}"), count
        if any(one.relays for one in self._inputs):
            points = sum((one.account() for one in self._inputs if one.relays), Counts())
            yield self._key("points_received"), points.received
            yield self._key("points_relayed"), points.aggregated
            yield self._key("points_bad"), points.bad
            for cause, count in points.dropped.items():
                yield self._key(f"points_dropped.{sanitise(cause)}"), count
        for one in self._inputs:
            for event, name in _EVENTS.items():
                if (times := one.events().get(event)) is not None:
                    label = re.sub(r"[^a-zA-Z0-9]+", "_", one.label).strip("_")
                    yield self._key(f"{name}.{label}"), times

    def sections(self) -> Mapping[str, Any]:
        """Return the sections of the page, by title."""
        counts = [(one, one.feed.counts()) for one in self._inputs]
        samples = sum((count for one, count in counts if not one.relays), Counts())
        sections: dict[str, Any] = {
            "Listeners": [_listener(one, count) for one, count in counts],
            "Pieces": _account(samples, "Aggregated"),
        }
        if any(one.relays for one in self._inputs):
            sections["Graphite points"] = _account(
                sum((count for one, count in counts if one.relays), Counts()), "Relayed"
            )
        bad = sorted(((line, one.label) for one in self._inputs for line in one.feed.bad_lines()), reverse=True)
        if bad:
            sections["Last bad lines"] = [_bad_line(line, label) for line, label in bad[:_SHOWN]]
        return sections


def _listener(one: Input, counts: Counts) -> Mapping[str, Any]:
    return {
        "Listener": one.label,
        "Packets": counts.packets,
        "Lines": counts.lines,
        "Received": counts.received,
        "Taken": counts.aggregated,
        "Bad": counts.bad,
        "Dropped": dict(counts.dropped),
        "Socket": dict(one.events()),
    }


def _account(counts: Counts, taken: str) -> Mapping[str, Any]:
    return {"Received": counts.received, taken: counts.aggregated, "Bad": counts.bad, "Dropped": dict(counts.dropped)}


def _bad_line(line: BadLine, label: str) -> Mapping[str, Any]:
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(line.time))
    return {"Time": moment, "Listener": label, "Line": line.text, "What is wrong": line.reason}
