"""The chart of the documentation, as SVG: what a call and a line cost, ours beside others, on a logarithmic scale.

In: costs in nanoseconds by name. Out: text. Its colours are readable on a light and on a dark page.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["PANELS", "Panel", "drawn"]

_WIDTH, _LEFT, _RIGHT = 760, 160, 130
_BAR, _GAP, _BETWEEN, _HEAD, _FOOT = 11, 3, 12, 44, 34
_INK, _FAINT = "#787d86", "#8a8f9840"
_COLOURS = {"C": "#2f9e8f", "Python": "#5b8fd0", "floor": "#9aa0a8", "other": "#cf8a4a"}


class Bar(NamedTuple):
    """One bar: whose it is, which colour that has, and the name of what it shows."""

    label: str
    colour: str
    what: str


class Panel(NamedTuple):
    """Groups of bars over one scale."""

    title: str
    groups: Mapping[str, Sequence[Bar]]


def _call(name: str, peer: str) -> Sequence[Bar]:
    return (
        Bar("C", "C", f"C: {name}"),
        Bar("Python", "Python", f"Python: {name}"),
        Bar("prometheus_client", "other", f"C: prometheus_client {peer}"),
    )


def _line(load: str, peers: Sequence[str] = ()) -> Sequence[Bar]:
    return (
        Bar("a bare recvmmsg loop", "floor", f"a bare recvmmsg loop: {load}"),
        Bar("C", "C", f"C: {load}"),
        Bar("Python", "Python", f"Python: {load}"),
        *(Bar(peer, "other", f"{peer}: {load}") for peer in peers),
    )


PANELS = (
    Panel(
        "A call in the program, nanoseconds",
        {
            "an empty method call": (Bar("", "floor", "C: an empty method call"),),
            "Counter.inc()": _call("Counter.inc()", "Counter.inc()"),
            "Gauge.set(x)": _call("Gauge.set(x)", "Gauge.set(x)"),
            "Timer.observe(x)": _call("Timer.observe(x)", "Histogram.observe(x)"),
            "@timed": _call("@timed, the bare call included", "@Histogram.time(), the bare call included"),
            "OpenTelemetry add(1)": (Bar("", "other", "C: OpenTelemetry Counter.add(1)"),),
            "datadog increment()": (Bar("", "other", "C: datadog increment(), aggregated"),),
        },
    ),
    Panel(
        "A line in the forwarder, nanoseconds of CPU",
        {
            "30 a datagram": _line("mixed, 30 a datagram", ["statsd"]),
            "distinct timer values": _line("distinct timer values, 30 a datagram", ["statsd"]),
            "100,000 keys": _line("mixed, 100,000 keys, 30 a datagram"),
        },
    ),
)


def drawn(costs: Mapping[str, float], panels: Sequence[Panel] = PANELS) -> str:
    """Return the chart of those bars that there are costs for."""
    parts: list[str] = []
    top = 0
    for panel in panels:
        lines, height = _panel(panel, costs, top)
        parts += lines
        top += height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}"'
        f' font-family="system-ui, sans-serif" font-size="11" fill="{_INK}" role="img">'
        "<title>What a call and a line cost</title>"
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _panel(panel: Panel, costs: Mapping[str, float], top: int) -> tuple[list[str], int]:
    groups = {
        name: found for name, bars in panel.groups.items() if (found := [bar for bar in bars if costs.get(bar.what)])
    }
    shown = [costs[bar.what] for bars in groups.values() for bar in bars]
    if not shown:
        return [], 0
    low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)))
    width = _WIDTH - _LEFT - _RIGHT
    height = sum(len(bars) * (_BAR + _GAP) + _BETWEEN for bars in groups.values())
    bottom = top + _HEAD + height
    lines = [_text(_LEFT, top + 24, panel.title, 'font-size="14" font-weight="600"')]
    for power in range(low, high + 1):
        x = _LEFT + width * (power - low) / (high - low)
        lines.append(f'<path d="M{x:.1f} {top + _HEAD - 6}V{bottom}" stroke="{_FAINT}"/>')
        lines.append(_text(x, bottom + 14, f"{10**power:,}", 'text-anchor="middle"'))
    y = top + _HEAD
    for name, bars in groups.items():
        lines += _group(name, bars, costs, y, lambda cost: width * (math.log10(cost) - low) / (high - low))
        y += len(bars) * (_BAR + _GAP) + _BETWEEN
    return lines, _HEAD + height + _FOOT


def _group(
    name: str, bars: Sequence[Bar], costs: Mapping[str, float], y: int, length: Callable[[float], float]
) -> Iterator[str]:
    middle = y + len(bars) * (_BAR + _GAP) / 2 + 2
    yield _text(_LEFT - 10, middle, name, 'text-anchor="end"')
    for bar in bars:
        cost = costs[bar.what]
        colour = _COLOURS[bar.colour]
        yield f'<rect x="{_LEFT}" y="{y}" width="{length(cost):.1f}" height="{_BAR}" rx="2" fill="{colour}"/>'
        figure = f"{cost:,.0f}" if cost >= 10 else f"{cost:.1f}"
        yield _text(_LEFT + length(cost) + 5, y + _BAR - 2, f"{figure}  {bar.label}".strip(), 'font-size="10"')
        y += _BAR + _GAP


def _text(x: float, y: float, text: str, more: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'
