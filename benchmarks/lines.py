"""What a line costs that comes over UDP: the CPU time of the receiver, for each line that it received.

The sender is on one core and sends as fast as it goes, the receiver is on the other. What the receiver had no time for
was dropped by the kernel, and counts for nothing: so it is what one core can take, whatever the clock on the wall says.
"""

from functools import partial

from .measure import Samples, Scale, in_turn
from .programs import Load
from .receivers import FLOOR, RECEIVERS, STATSD, Receiver, missing_receiver, settled
from .rows import Row, at_least, at_most

__all__ = ["ROWS", "TITLE", "run"]

TITLE = "A line over UDP (CPU time of the receiver)"
_ROUNDS = 7

_LOADS = {
    "mixed, 30 a datagram": Load("mixed", 500, 30),
    "distinct timer values, 30 a datagram": Load("timers", 500, 30),
    "mixed, one a datagram": Load("mixed", 500, 1),
    "mixed, 100,000 keys, 30 a datagram": Load("mixed", 100_000, 30),
    "counters, all keys new, 30 a datagram": Load("new", 1, 30, 100_000),  # all in all fewer than the cap of series
}
MIXED, TIMERS, ONE, MANY, NEW = _LOADS
_RECEIVERS = {
    MIXED: (FLOOR, "C", "Python", STATSD),
    TIMERS: (FLOOR, "C", "Python", STATSD),
    ONE: (FLOOR, "C", "Python"),
    MANY: (FLOOR, "C", "Python"),
    NEW: (FLOOR, "C", "Python", STATSD),
}


def _name(receiver: str, load: str) -> str:
    return f"{receiver}: {load}"


def _row(receiver: str, load: str, other: str = "", goal: float = 0, *, cheaper: bool = False) -> Row:
    made = (at_least if cheaper else at_most)(goal) if goal else None
    return Row(_name(receiver, load), "ns", other, made)


ROWS = (
    *(
        row
        for load in (MIXED, TIMERS)
        for row in (
            _row(FLOOR, load),
            _row("C", load, _name(FLOOR, load), 2.2),
            _row("C", load, _name(STATSD, load), 15, cheaper=True),
            _row("Python", load, _name(STATSD, load)),
            _row(STATSD, load, _name(FLOOR, load)),
        )
    ),
    _row(FLOOR, ONE),
    _row("C", ONE, _name(FLOOR, ONE), 1.3),
    _row("Python", ONE, _name(FLOOR, ONE)),
    _row(FLOOR, MANY, _name(FLOOR, MIXED)),
    _row("C", MANY, _name("C", MIXED), 3),
    _row("Python", MANY, _name("Python", MIXED)),
    _row(FLOOR, NEW),
    _row("C", NEW, _name(STATSD, NEW), 1, cheaper=True),
    _row("Python", NEW, _name(STATSD, NEW)),
    _row(STATSD, NEW, _name(FLOOR, NEW)),
)


def run(scale: Scale) -> tuple[Samples, str]:
    """Return seconds of CPU a line."""
    samples: Samples = {}
    notes: dict[str, None] = {}
    for load, names in _RECEIVERS.items():
        absent = {name: why for name in names if (why := missing_receiver(name))}
        notes |= dict.fromkeys(absent.values())
        samples |= _one_load(load, [name for name in names if name not in absent], scale)
    return samples, "; ".join(notes)


def _one_load(load: str, names: list[str], scale: Scale) -> Samples:
    running: dict[str, Receiver] = {}
    try:
        for name in names:
            running[name] = RECEIVERS[name]()
        works = {_name(name, load): partial(_a_line, running[name], _LOADS[load], scale.burst) for name in names}
        return in_turn(works, min(scale.rounds, _ROUNDS))
    finally:
        for receiver in running.values():
            receiver.close()


def _a_line(receiver: Receiver, load: Load, seconds: float) -> float:
    lines, begin = receiver.lines(), settled(receiver.pid)
    load.send(receiver.port, seconds)
    taken = settled(receiver.pid) - begin
    return taken / max(1, receiver.lines() - lines)
