"""What is measured for the upgrade test: by the version that writes the fixtures, and by the one that continues them.

Five intervals of a minute. The version of the fixtures measures `SLOTS[0]` to `SLOTS[2]`, which are over, and
`SLOTS[3]`, the open interval; the version under test measures `LATER` in the same open interval and `SLOTS[4]`. This
file imports nothing of the packages: what must arrive follows from the lines alone.
"""

from collections.abc import Sequence
from typing import Any

START = 1_700_006_400
INTERVAL = 60
SENDER = "maker"
"""The sender of numbered batches, one in each part."""
TO = (
    "graphite://graphite.invalid:2003",
    "graphite+pickle://pickle.invalid:2004",
    "statsd+tcp://statsd.invalid:8125",
    "forwarder+tcp://upstream.invalid:8129",
    "whisper:data?retentions=60s:1h",
    "file:windows/all.jsonl",
)
PROGRAM = ("graphite://graphite.invalid:2003", "file:windows/all.jsonl")
"""Where the forwarder and the program deliver. No resolver knows the hosts; paths are relative to the fixture."""

Lines = Sequence[str]


def _lines(part: int) -> Lines:
    """What one part measures: every kind of series, a timer with few samples and one that becomes a sketch."""
    return [
        f"web.hits:{part + 1}|c",
        f"web.hits:{10 * part + 3}|c|#route:u,status:200",
        "load:0.1|c",
        "load:0.2|c",
        f"sampled:{part + 2}|c|@0.25",
        f"depth:{'+' if part else ''}{10 + part}|g",
        f"level:-{part}.5|g",
        *(f"few:{sample + part + 0.5}|ms" for sample in range(5)),
        *(f"many:{1 + sample * (part + 1)}|ms" for sample in range(700)),
        *(f"size:{sample << part}|h" for sample in range(1, 20)),
        *(f"users:u{user * (part + 1)}|s" for user in range(40)),
    ]


SLOTS: Sequence[Lines] = [_lines(part) for part in (0, 1, 2, 3, 5)]
LATER: Lines = _lines(4)


def numbered(part: int) -> str:
    """Return a batch of the sender; parts 0 to 3 are those of the first slots, 4 of `LATER`, 5 of the last slot."""
    lines = f"numbered:{part + 1}|c\n"
    return f"{SENDER} {part + 1} {len(lines)}\n{lines}"


def relayed(part: int) -> str:
    """A point that passes by registry and window."""
    return f"relayed.path {part}.5 {START + INTERVAL * part}\n"


def measured(*parts: Lines) -> dict[str, list[float]]:
    """Return the values of `parts` by `series|kind`; a counter's divided by its rate, a gauge's as they become."""
    found: dict[str, list[float]] = {}
    for line in (line for part in parts for line in part):
        name, _, rest = line.strip().partition(":")
        value, kind, *more = rest.split("|")
        tags = next((field[1:] for field in more if field.startswith("#")), "")
        key = ";".join([name, *(tag.replace(":", "=") for tag in tags.split(",") if tag)])
        values = found.setdefault(f"{key}|{kind}", [])
        if kind == "s":
            values.append(float(value.removeprefix("u")))
        elif kind == "g" and value[0] in "+-":
            values.append((values[-1] if values else 0) + float(value))
        else:
            rate = next((float(field[1:]) for field in more if field.startswith("@")), 1)
            values.append(float(value) / rate)
    return found


def use(registry: Any, part: int) -> None:
    """Measure in a program what a part measures, with instruments."""
    registry.counter("hits").inc(part + 1)
    registry.counter("hits", tags={"route": "u"}).inc(0.1)
    registry.gauge("depth").inc(10 + part)
    for sample in range(700):
        registry.timer("many").observe((1 + sample * (part + 1)) / 1000)
    for sample in range(1, 20):
        registry.histogram("size").observe(sample << part)
    for user in range(40):
        registry.unique("users").add(f"u{user * (part + 1)}")
