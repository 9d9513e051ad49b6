"""Other libraries that measure, each set up as its manual says, where it is installed."""

from types import SimpleNamespace
from typing import Any

__all__ = ["peers"]


def peers() -> dict[str, Any]:
    """Return the peers' instruments by the name of the library."""
    found: dict[str, Any] = {}
    for make in (_prometheus, _opentelemetry, _datadog):
        try:
            found[make.__name__.strip("_")] = make()
        except ImportError:
            continue
    return found


def _prometheus() -> Any:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

    registry = CollectorRegistry()
    histogram = Histogram("t", "", registry=registry)

    @histogram.time()
    def timed() -> None:
        pass

    return SimpleNamespace(
        counter=Counter("c", "", registry=registry),
        tagged=Counter("d", "", ["route"], registry=registry),
        gauge=Gauge("g", "", registry=registry),
        histogram=histogram,
        summary=Summary("s", "", registry=registry),
        timed=timed,
    )


def _opentelemetry() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    meter = MeterProvider(metric_readers=[InMemoryMetricReader()]).get_meter("benchmarks")
    return SimpleNamespace(counter=meter.create_counter("c"), histogram=meter.create_histogram("t"))


def _datadog() -> Any:
    from datadog.dogstatsd.base import DogStatsd

    # Nobody listens there; what is sent now and then by a thread of its own is lost without a trace.
    return DogStatsd(host="127.0.0.1", port=9, disable_aggregation=False)
