"""What a call on an instrument costs, folding included, beside an empty method call and beside other libraries.

Calls are written out, eight in a loop's turn, with values that vary as latencies do; what the loop itself takes is
measured too, and taken off. In Python a call only lets its value wait, and one in hundreds folds what waits: what the
others cost has rows of its own.
"""

import random
import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle, islice
from textwrap import indent
from typing import Any

from .child import both_implementations
from .measure import Samples, Scale, in_turn, seconds
from .peers import peers
from .programs import missing_compiler, program
from .rows import Row, at_least, at_most

__all__ = ["ROWS", "TITLE", "loop", "measure", "ours", "run"]

TITLE = "A call in the program"
FLOOR = "an empty method call"
CLOCK = "two reads of the clock by a C function"
_AT_ONCE = 8
_TAG = '(route="/u")'
_TIMED = ", the bare call included"
_APART = ", while nothing is folded"
_FEW, _TIMES = 60, 20  # turns of the loop, after which nothing is folded yet, and how often in a round

# What it is, how it is written, and the goals beside the floor (in C, in Python) and beside prometheus_client.
_CALLS: Sequence[tuple[str, str, float, float | None, float]] = (
    ("Counter.inc()", "counter.inc()", 0.9, 3, 15),
    ("Gauge.set(x)", "gauge.set({x})", 1, None, 12),
    ("Timer.observe(x)", "timer.observe({x})", 1, 4, 35),
    (f"@timed{_TIMED}", "timed()", 6, 13, 10),
    ("with timer.time()", "with timer.time():\n pass", 6, None, 9),
    (f"counter.tagged{_TAG}.inc()", f"counter.tagged{_TAG}.inc()", 6, None, 8),
)
_PEERS: Mapping[str, tuple[str, str]] = {
    "Counter.inc()": ("prometheus_client Counter.inc()", "prometheus.counter.inc()"),
    "Gauge.set(x)": ("prometheus_client Gauge.set(x)", "prometheus.gauge.set({x})"),
    "Timer.observe(x)": ("prometheus_client Histogram.observe(x)", "prometheus.histogram.observe({x})"),
    f"@timed{_TIMED}": (f"prometheus_client @Histogram.time(){_TIMED}", "prometheus.timed()"),
    "with timer.time()": ("prometheus_client with Histogram.time()", "with prometheus.histogram.time():\n pass"),
    f"counter.tagged{_TAG}.inc()": (f"prometheus_client labels{_TAG}.inc()", f"prometheus.tagged.labels{_TAG}.inc()"),
}
_FURTHER = {
    "prometheus_client Summary.observe(x)": "prometheus.summary.observe({x})",
    "OpenTelemetry Counter.add(1)": "opentelemetry.counter.add(1)",
    "OpenTelemetry Histogram.record(x)": "opentelemetry.histogram.record({x})",
    "datadog increment(), aggregated": "datadog.increment('c')",
}


def _rows() -> Iterable[Row]:
    for implementation in ("C", "Python"):
        yield Row(f"{implementation}: {FLOOR}", "ns")
        yield Row(f"{implementation}: {CLOCK}", "ns", f"{implementation}: {FLOOR}")
        for name, _, in_c, in_python, beside in _CALLS:
            limit = in_c if implementation == "C" else in_python
            yield Row(
                f"{implementation}: {name}", "ns", f"{implementation}: {FLOOR}", at_most(limit) if limit else None
            )
            if implementation == "C":
                yield Row(f"{implementation}: {name}", "ns", f"{implementation}: {_PEERS[name][0]}", at_least(beside))
            elif limit:
                yield Row(f"{implementation}: {name}{_APART}", "ns", f"{implementation}: {FLOOR}", at_most(limit))
        if implementation == "C":
            yield from (Row(f"{implementation}: {name}", "ns", f"{implementation}: {FLOOR}") for name in _FURTHER)


ROWS = tuple(_rows())


def run(scale: Scale) -> tuple[Samples, str]:
    """Return seconds a call."""
    return both_implementations("calls", scale, "metricslib")


def measure(scale: Scale) -> Samples:
    """Return seconds a call, with the implementation of this process."""
    given = {**ours(), **peers()}
    statements = {"": "pass", FLOOR: "nothing.call()"}
    statements |= {name: statement for name, statement, *_ in _CALLS}
    statements |= {**dict(_PEERS.values()), **_FURTHER}
    turns = scale.calls // _AT_ONCE
    values = _values(scale.calls)
    works: dict[str, Callable[[], float]] = {}
    for name, statement in statements.items():
        root = statement.removeprefix("with ").partition(".")[0]
        if root in given or not statement.count("."):
            works[name] = _timed(loop(statement, given), values, turns)
    for name, statement, _, in_python, _ in _CALLS:
        if in_python:
            works[name + _APART] = _unfolded(loop(statement, given), values, given["registry"].snapshot)
    if not missing_compiler():
        works[CLOCK] = lambda: float(subprocess.check_output([program("clock"), str(scale.calls)]))
    return _net(in_turn(works, scale.rounds))


def ours() -> dict[str, Any]:
    """Return what the statements speak of, without peers."""
    from metricslib import Registry

    registry = Registry()

    def bare() -> None:
        pass

    return {
        "registry": registry,
        "nothing": _Nothing(),
        "bare": bare,
        "timed": registry.timed("f")(bare),
        "counter": registry.counter("c"),
        "gauge": registry.gauge("g"),
        "timer": registry.timer("t"),
    }


class _Nothing:
    """The floor: a method that does nothing."""

    def call(self) -> None:
        pass


def _values(count: int) -> list[tuple[float, ...]]:
    mind = random.Random(1)
    return [tuple(mind.lognormvariate(-3, 1) for _ in range(_AT_ONCE)) for _ in range(min(count, 4096) // _AT_ONCE)]


def loop(statement: str, given: Mapping[str, Any]) -> Callable[[Iterable[tuple[float, ...]]], None]:
    """Compile a function that does the statement once for each value."""
    names = [f"x{number}" for number in range(_AT_ONCE)]
    body = "\n".join(indent(statement.replace("{x}", name), "  ") for name in names)
    source = f"def work(blocks, {', '.join(given)}):\n for {', '.join(names)} in blocks:\n{body}\n"
    made: dict[str, Any] = {}
    exec(source, made)
    work: Callable[..., None] = made["work"]
    return lambda blocks: work(blocks, **given)


def _timed(
    work: Callable[[Iterable[tuple[float, ...]]], None], values: Sequence[tuple[float, ...]], turns: int
) -> Callable[[], float]:
    return lambda: seconds(lambda: work(islice(cycle(values), turns))) / (turns * _AT_ONCE)


def _unfolded(
    work: Callable[[Iterable[tuple[float, ...]]], None], values: Sequence[tuple[float, ...]], fold: Callable[[], object]
) -> Callable[[], float]:
    once = _timed(work, values, _FEW)

    def costs() -> Iterable[float]:
        for _ in range(_TIMES):
            fold()
            yield once()

    return lambda: statistics.median(costs())


def _net(samples: Samples) -> Samples:
    """Take off the loop."""
    loops = samples.pop("")
    clock = {name: costs for name, costs in samples.items() if name == CLOCK}
    return clock | {
        name: [cost - less for cost, less in zip(costs, loops, strict=True)]
        for name, costs in samples.items()
        if name != CLOCK
    }
