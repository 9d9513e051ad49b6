"""What it adds to a statsd line to count its key and to repeat it, against taking it in and nothing else."""

import socket
from collections.abc import Callable

from forwarder.aggregator import Aggregator
from forwarder.repeater import Repeater
from forwarder.top_keys import TopKeys
from metricslib import Registry

from .aggregator import DATAGRAMS, LINES, batch, mixed
from .measure import Samples, Scale, in_turn, seconds
from .rows import Row

__all__ = ["ROWS", "TITLE", "run"]

TITLE = "A line that is repeated, or whose key is counted"
_TAKEN_IN = "taking it in"
_WORKS = (
    _TAKEN_IN,
    "… and counting its key",
    "… and letting it wait for a target",
    "… and sending it to a target",
)
ROWS = tuple(Row(name, "ns", _TAKEN_IN if name != _TAKEN_IN else "") for name in _WORKS)
_TIMES = 5


def run(scale: Scale) -> tuple[Samples, str]:
    """Return seconds a line; those with a target that is sent to have a thread that sends meanwhile."""
    datagrams = batch(mixed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        target = f"udp://127.0.0.1:{deaf.getsockname()[1]}"
        waiting, sending = Repeater([target]), Repeater([target])
        sending.start()
        try:
            consumers = ((), (TopKeys().feed,), (waiting.datagrams,), (sending.datagrams,))
            works = {name: _work(datagrams, *take) for name, take in zip(_WORKS, consumers, strict=True)}
            return in_turn(works, scale.rounds), ""
        finally:
            sending.stop(1)


def _work(datagrams: list[bytes], *consumers: Callable[[list[bytes]], object]) -> Callable[[], float]:
    aggregator = Aggregator(Registry(max_series=1_000_000))

    def work() -> None:
        for _ in range(_TIMES):
            aggregator.feed(datagrams)
            for take in consumers:
                take(datagrams)
        aggregator.collect()

    return lambda: seconds(work) / (_TIMES * LINES * DATAGRAMS)
