"""What it adds to a statsd line to count its key and to repeat it, against taking it in and nothing else."""

import socket
from collections.abc import Callable

from forwarder.busiest import Busiest
from forwarder.intake import Intake
from forwarder.repeater import Repeater
from metricslib import Registry

from .intake import mixed_batch
from .measure import Figure, compare

__all__ = ["run"]

LINES = 30  # a datagram
DATAGRAMS = 256  # a batch


def _work(batch: list[bytes], *takers: Callable[[list[bytes]], object]) -> Callable[[int], None]:
    intake = Intake(Registry(max_series=1_000_000))

    def work(count: int) -> None:
        for _ in range(count):
            intake.feed(batch)
            for take in takers:
                take(batch)
        intake.collect()

    return work


def run() -> list[Figure]:
    """Return nanoseconds a line; those with a target that is sent to have a thread that sends meanwhile."""
    batch = mixed_batch(LINES, DATAGRAMS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        target = f"udp://127.0.0.1:{deaf.getsockname()[1]}"
        waiting, sending = Repeater([target]), Repeater([target])
        sending.start()
        try:
            works = {
                "taking it in": _work(batch),
                "… and counting its key": _work(batch, Busiest().feed),
                "… and letting it wait for a target": _work(batch, waiting.datagrams),
                "… and sending it to a target": _work(batch, sending.datagrams),
            }
            return compare(works, 5, LINES * DATAGRAMS)
        finally:
            sending.stop(1)
