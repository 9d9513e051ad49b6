"""The library's own metrics: sent and dropped data, and failures.

They come from a source of the registry, under a name of their own, with a tag for each destination. Counters contain
the changes since the last collection.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from .delivery import SenderStatus
from .drops import DropCounter
from .series import Kind, canonical_tags, join
from .window import Aggregates, GaugeChange

__all__ = ["SelfMetrics"]


class SelfMetrics:
    """Converts counts of errors and drops, and the status of the destinations, to aggregates under ``name``."""

    def __init__(
        self, name: str, dropped: DropCounter, errors: DropCounter, status: Callable[[], list[SenderStatus]]
    ) -> None:
        self._name = name
        self._dropped = dropped
        self._errors = errors
        self._status = status
        self._before: dict[str, float] = {}
        self._gone: Counter[str] = Counter()

    def collect(self) -> Aggregates:
        """Return the changes since the last call, and the seconds since each destination's last success."""
        aggregates = Aggregates()
        for cause, count in self._dropped.fresh().items():
            aggregates.counters[self._key("dropped", cause=cause)] = count
        for cause, count in self._errors.fresh().items():
            aggregates.counters[self._key("errors", cause=cause)] = count
        totals = self._gone.copy()
        for status in self._status():
            totals.update(dict(self._sent(status)))
            if status.age is not None:
                aggregates.gauges[self._key("last_success_age", destination=status.label)] = GaugeChange(status.age)
            aggregates.gauges[self._key("spool_bytes", destination=status.label)] = GaugeChange(status.waiting_bytes)
        for key, total in totals.items():
            if (new := total - self._before.get(key, 0)) > 0:
                aggregates.counters[key] = new
                self._before[key] = total
        return aggregates

    def remove(self, status: SenderStatus) -> None:
        """Keep the last status of a destination that is being removed."""
        self._gone.update(dict(self._sent(status)))

    def forget(self, kind: Kind, key: str) -> None:
        """Do nothing: there is no memory to free."""

    def _key(self, name: str, **tags: str) -> str:
        return join(f"{self._name}.{name}", canonical_tags({tag: _readable(text) for tag, text in tags.items()}))

    def _sent(self, status: SenderStatus) -> Iterator[tuple[str, int]]:
        yield self._key("windows_sent", destination=status.label), status.windows_sent
        yield self._key("points_sent", destination=status.label), status.points_sent
        yield self._key("bytes_sent", destination=status.label), status.bytes_sent
        yield self._key("send_errors", destination=status.label), status.errors
        if status.unverified:
            yield self._key("points_unverified", destination=status.label), status.unverified
        for node in status.nodes:
            yield self._key("send_errors", destination=node.label), node.errors
        for cause, count in status.dropped.items():
            yield self._key("points_dropped", destination=status.label, cause=cause), count


def _readable(text: str) -> str:
    """Return a URL or a cause as a readable tag value: ``statsd_unix_run_statsd.sock``."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("_")
