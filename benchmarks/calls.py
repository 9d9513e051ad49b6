"""What a call on an instrument costs, folding included, against an empty method call and against prometheus_client."""

from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

import prometheus_client

from metricslib import Registry

from .measure import Figure, compare

__all__ = ["run"]

COUNT = 20_000


class Nothing:
    """The floor: a method that does nothing."""

    def call(self, value: float = 1) -> None:
        pass


def _repeat(call: Callable[..., object], *arguments: object) -> Callable[[int], None]:
    def work(count: int) -> None:
        for _ in repeat(None, count):
            call(*arguments)

    return work


def _works() -> Mapping[str, Callable[[int], object]]:
    registry, peers = Registry(), prometheus_client.CollectorRegistry()
    counter, gauge, timer = registry.counter("c"), registry.gauge("g"), registry.timer("t")
    peer_counter = prometheus_client.Counter("c", "", registry=peers)
    peer_gauge = prometheus_client.Gauge("g", "", registry=peers)
    peer_timer = prometheus_client.Histogram("t", "", registry=peers)
    peer_tagged = prometheus_client.Counter("d", "", ["route"], registry=peers)

    def bare() -> None:
        pass

    def span() -> None:
        with timer.time():
            pass

    def peer_span() -> None:
        with peer_timer.time():
            pass

    works: dict[str, Any] = {
        "an empty method call": _repeat(Nothing().call, 1.0),
        "counter.inc()": _repeat(counter.inc),
        "  prometheus_client Counter.inc()": _repeat(peer_counter.inc),
        "gauge.set(x)": _repeat(gauge.set, 2.5),
        "  prometheus_client Gauge.set(x)": _repeat(peer_gauge.set, 2.5),
        "timer.observe(x)": _repeat(timer.observe, 0.25),
        "  prometheus_client Histogram.observe(x)": _repeat(peer_timer.observe, 0.25),
        "a call of a function with @timed": _repeat(registry.timed("f")(bare)),
        "  prometheus_client @Histogram.time()": _repeat(peer_timer.time()(bare)),
        "with timer.time()": _repeat(span),
        "  prometheus_client with Histogram.time()": _repeat(peer_span),
        "counter.tagged(route=…).inc()": _repeat(lambda: counter.tagged(route="/u").inc()),
        "  prometheus_client Counter.labels(route=…).inc()": _repeat(lambda: peer_tagged.labels(route="/u").inc()),
    }
    return works


def run() -> list[Figure]:
    """Return nanoseconds a call."""
    return compare(_works(), COUNT)
