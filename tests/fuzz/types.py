"""Call all that the C types let Python reach, with anything, in any state: an exception is fine, a crash is not.

``python -m tests.fuzz.types SECONDS [SEED]``, best under the address sanitizer (``make fuzz-types``). Each case is a
world of its own: instruments of every kind, spans, distributions, bare cells, aggregators. Their methods and attributes
are found by introspection, the private ones too, and are called with garbage, with each other, and with objects that
act: asked for a number, a hash or a length, or when they go, they take another step in the same world, raise, or change
the list that they came in.

Beside the garbage there are instruments, a distribution and an aggregator that are used as is proper, but from
everywhere, also in the middle of all that: what comes out of them at the end is what went in.

A case depends on its seed alone. It runs in a process of its own kind, so that a crash or a hang is told with its seed.
"""

import gc
import logging
import math
import mmap
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from forwarder import _aggregator
from forwarder.aggregator_c import CAggregator
from metricslib.instruments import base as instrument_module
from metricslib.instruments.base import Cell
from metricslib.instruments.gauge import _Delta
from metricslib.instruments.timer import Timer
from metricslib.registry import Registry
from metricslib.sketch import Distribution
from metricslib.testing import ManualClock
from metricslib.window import GaugeChange

from .aggregator import datagram

KINDS = ("counter", "gauge", "timer", "histogram", "unique")
STEPS = 150  # a case, at most; as many again within them, and more
DEEPEST = 4
LONGEST = 60  # seconds a case may take
NAMES = ("a", "b", "c;t=1")
NUMBERS: Sequence[Any] = (
    *(0, 1, -1, 2, 3, 255, 513, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, -(10**30), 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1e-320, 1e300, -1e300, 1e308, math.inf, -math.inf, math.nan, True, False),
)
OTHERS: Sequence[Any] = (
    *(
        None,
        NotImplemented,
        ...,
        "",
        "a",
        "a;t=1",
        "\udc80",
        b"",
        b"a",
        b"a:1|c",
        (),
        (None,),
        1j,
        object,
        int,
        KeyError,
    ),
    *(
        tuple.__new__(GaugeChange, ()),
        GaugeChange(1, 2),
        GaugeChange(None, 10**30),
        tuple.__new__(GaugeChange, (1, 2, 3)),
    ),
    *(
        _Delta((1,)),
        tuple.__new__(_Delta, ()),
        range(3),
        frozenset({1}),
        print,
        len,
        "x" * 5000,
        (1, b"a", 5),
        (0, "a"),
    ),
)
LEFT_ALONE = frozenset(
    # What every object has, and what is no concern of these types.
    {"__class__", "__getattribute__", "__setattr__", "__delattr__", "__init_subclass__", "__subclasshook__", "__doc__"}
    | {"__dir__", "__sizeof__", "__format__", "__getstate__", "__weakref__", "__slots__", "__module__"}
)


class Acted(Exception):
    """What objects that act raise."""


class Acts:
    """An object that acts whenever it is asked for something."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._raises = world.rng.random() < 0.2

    def _act(self) -> Any:
        world = self._world
        world.step()
        if self._raises:
            raise Acted
        return world.rng.choice(NUMBERS)

    def __float__(self) -> float:
        return float(self._act())

    def __index__(self) -> int:
        return int(self._act())

    def __bool__(self) -> bool:
        return bool(self._act())

    def __hash__(self) -> int:
        return hash(self._act())

    def __eq__(self, other: object) -> bool:
        return bool(self._act())

    def __lt__(self, other: object) -> bool:
        return bool(self._act())

    def __len__(self) -> int:
        return int(self._act()) % 5

    def __getitem__(self, index: object) -> Any:
        if self._world.rng.random() < 0.3:
            raise IndexError
        return self._act()

    def __call__(self, *args: object, **kwargs: object) -> Any:
        self._act()
        return self._world.value()

    def __str__(self) -> str:
        return str(self._act())

    def __neg__(self) -> Any:
        return self._act()

    def __del__(self) -> None:
        with suppress(Exception):
            self._act()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._act()
        return self._world.value()


class ActsAsText(str):
    _world: "World"

    def __hash__(self) -> int:
        self._world.step()
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        self._world.step()
        return super().__eq__(other)


class ActsAsFloat(float):
    _world: "World"

    def __float__(self) -> float:
        self._world.step()
        return 1.5


class ActsAsInt(int):
    _world: "World"

    def __index__(self) -> int:
        self._world.step()
        return 1


class ActsInList:
    """A number that changes the list that it is in."""

    def __init__(self, world: "World", values: list[Any]) -> None:
        self._world, self._values = world, values

    def __float__(self) -> float:
        self._world.step()
        if self._world.rng.random() < 0.5:
            self._values.clear()
        else:
            self._values.append(1.0)
        return 1.0

    def __index__(self) -> int:
        return int(float(self))

    __len__ = __hash__ = __index__


class Weighed:
    """A number for a proper instrument: it acts, and says what it was taken for."""

    def __init__(self, world: "World", value: int) -> None:
        self._world, self._value = world, value

    def __float__(self) -> float:
        self._world.step()
        self._world.expected["counted"] += self._value
        return float(self._value)


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.depth = self.steps = 0
        self.ticking = False
        self.clock = ManualClock()
        self.registry = Registry(clock=self.clock, exact=self.rng.choice([1, 4, 20]), max_tag_sets=5)
        self.proper = Registry(clock=self.clock, exact=4)
        self.expected = {"counted": 0, "timed": 0, "added": 0, "changed": 0, "fed": 0, "distributed": 0}
        self.distribution = Distribution(limit=3)
        self.aggregator = CAggregator(self.proper, clock=self.clock)
        self.proper.add_source(self.aggregator)
        self.objects: list[Any] = [Distribution(), Distribution([1.0] * 5, limit=2), Cell, Distribution]
        self.objects += [getattr(self.registry, kind)("a") for kind in KINDS]
        self.objects += [self.registry.timer("a").time(), self.registry.timer("b").time()]
        self.objects += [self.new_intake(self), self.new_intake(Acts(self))]

    def new_intake(self, owner: object) -> Any:
        keys, size, room = self.rng.choice([0, 3, 1000]), self.rng.choice([0, 20_000, 1 << 30]), array("q", [0, 0])
        room_size = self.rng.choice([0, 1000, 1 << 30])
        return _aggregator.Aggregator(owner, 4, 3, keys, 1, Distribution, GaugeChange, size, room, room_size)

    # What an aggregator asks its owner.
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args: self.answer(name, args)

    def answer(self, name: str, args: tuple[Any, ...]) -> Any:
        self.step()
        numbers = [-1, -2, -3, 0, 1, 2, 99]
        if self.rng.random() < 0.2:
            return self.value()
        if name == "_admit" and isinstance(args[0], list):
            keys = [pair[1] for pair in args[0]]
            return self.rng.choice([None, keys, keys[1:], [*keys, 1], [self.value() for _ in keys]])
        if name == "_read":
            effect = (self.rng.choice(numbers), self.rng.randrange(5), 0, 1.0, 1.0, b"m")
            return [effect] * self.rng.randrange(3), self.rng.randrange(3)
        return self.rng.choice(numbers)

    # -- values

    def value(self) -> Any:
        rng = self.rng
        match rng.randrange(12):
            case 0 | 1 | 2:
                return rng.choice(NUMBERS)
            case 3:
                return rng.choice(OTHERS)
            case 4:
                return rng.choice(self.objects)
            case 5:
                return Acts(self)
            case 6:
                values = self.values()
                values.insert(rng.randrange(len(values) + 1), ActsInList(self, values))
                return values
            case 7:
                acting: Any = rng.choice([ActsAsText("a"), ActsAsFloat(2.5), ActsAsInt(2)])
                acting._world = self
                return acting
            case 8:
                made: Any = rng.choice([list, tuple, set, iter])
                return made([1.0, 2, rng.random()][: rng.randrange(4)])
            case 9:
                return rng.choice([[b"a:1|c\nb:2|ms", b"a:1|ms\n\n"], [b"a:x|c"], [b"a:1|c", "a:1|c"]])
            case 10:
                return {rng.choice(["a", "b"]): self.rng.choice(NUMBERS)}
            case _:
                return [(rng.randrange(7), rng.choice(["a", "b", b"a"])) for _ in range(rng.randrange(3))]

    def values(self) -> list[Any]:
        return self.rng.choice(([], [1.0, 2, self.rng.random()], [1.0, 5e10] * 35, [float(n) for n in range(600)]))

    def arguments(self, target: Any, name: str) -> tuple[Any, ...]:
        """Anything, or now and then what the method expects, so that more than its first check is reached."""
        rng = self.rng
        if name == "receive":  # which may wait for ever where it is told to
            return (rng.choice([RECEIVING, -1, 10**6]), rng.choice([-1, READABLE]), rng.choice([0.0, 1e-9, -1.0, "x"]))
        if rng.random() < 0.5:
            return tuple(self.value() for _ in range(rng.choice([0, 1, 1, 2, 3, 7])))
        match name:
            case "extend" | "_shares" | "shares" | "__init__":
                return (self.values(),)
            case "extended":
                return (rng.choice([None, *self.objects]), self.values(), rng.randrange(9))
            case "merge":
                return (rng.choice([each for each in self.objects if isinstance(each, Distribution)]),)
            case "_commit":
                return (getattr(target, "_lock", None), self.value(), rng.randrange(600))
            case "_call":
                return (Acts(self), (), {})
            case "_begin" | "_drop":
                return (rng.choice([0, 1, 600]),)
            case "remember":
                return (rng.randrange(5), rng.choice([b"a", b"b"]), rng.choice([-1, -2, 0, 1]))
            case "series":
                return (rng.randrange(5), rng.choice(["a", "b"]), rng.random() < 0.1)
            case "look_up":
                return (rng.randrange(5), rng.choice([b"a", b"b"]))
            case "feed":
                return ([datagram(rng) for _ in range(rng.randrange(3))],)
            case _:
                return (self.value(),)

    # -- steps

    def step(self) -> None:
        """Do anything; an exception is an answer like any other."""
        self.steps += 1
        if self.depth >= DEEPEST or self.steps > 5 * STEPS:
            return
        self.depth += 1
        try:
            self._step()
        except SystemError:  # of C that returned nothing and raised nothing, or both
            raise
        except (Exception, SystemExit):
            pass
        finally:
            self.depth -= 1

    def _step(self) -> None:
        kind = self.rng.randrange(20)
        if kind < 3:
            self.use_properly()
        elif kind == 3:
            gc.collect(self.rng.randrange(3))
        elif kind == 4:
            self.make()
        elif kind == 5 and len(self.objects) > 4:
            del self.objects[self.rng.randrange(len(self.objects))]
        elif kind == 6 and not self.ticking:  # a tick in a tick waits for it, for seconds
            self.ticking = True
            try:
                self.tick(self.registry)
            finally:
                self.ticking = False
        else:
            self.call()

    def make(self) -> None:
        rng = self.rng
        made: Any
        match rng.randrange(7):
            case 0:
                made = Distribution(self.value(), limit=self.value())
            case 1:
                timers = [each for each in self.objects if isinstance(each, Timer)]
                made = rng.choice(timers).time()
            case 2:
                made = getattr(self.registry, rng.choice(KINDS))(rng.choice(NAMES)).tagged(
                    **{rng.choice(["t", "u"]): 1}
                )
            case 3:
                kind: Any = type(rng.choice(self.objects))
                made = kind.__new__(kind)
            case 4:
                made = self.new_intake(rng.choice([self, Acts(self), None]))
            case 5:
                made = type("Sub", (Distribution,), {})([1.0, 2.0])
            case _:
                made = Cell()
        if not isinstance(made, type(None) | World):
            self.objects.append(made)

    def call(self) -> None:
        target = self.rng.choice(self.objects)
        name = self.rng.choice(names_of(target if isinstance(target, type) else type(target)))
        attribute = getattr(target, name)
        if not callable(attribute) or self.rng.random() < 0.02:
            if isinstance(target, type):  # whose attributes are everybody's
                return
            if self.rng.random() < 0.6:
                setattr(target, name, self.value())
            elif self.rng.random() < 0.3:
                delattr(target, name)
            return
        names = {}
        if self.rng.random() < 0.2:
            key = self.rng.choice(["n", "a", "limit", "value", "seconds", "values", ActsAsText("b")])
            if isinstance(key, ActsAsText):
                key._world = self
            names = {key: self.value()}
        result = attribute(*self.arguments(target, name), **names)
        if isinstance(result, Distribution | Cell):
            self.objects.append(result)
            del self.objects[:-40]

    def use_properly(self) -> None:
        """One use of what is checked at the end; what it was for is noted when it is done."""
        rng, registry, expected = self.rng, self.proper, self.expected
        match rng.randrange(7):
            case 0:
                weighed: Any = Weighed(self, rng.randrange(5))
                registry.counter("counted").inc(weighed)
            case 1:
                registry.counter("counted").inc()
                expected["counted"] += 1
            case 2:
                with registry.timer("timed").time():
                    expected["timed"] += 1
                    self.step()
            case 3:
                registry.unique("added").add(expected["added"])
                expected["added"] += 1
            case 4:
                registry.gauge("changed").inc(2)
                expected["changed"] += 2
            case 5:
                self.distribution.extend([1.0, 2.0])
                expected["distributed"] += 2
            case _:
                if not self.aggregator._feeding.locked():
                    self.aggregator.feed([b"fed:1|c", b"fed:2|c\nfed:x|c"])
                    expected["fed"] += 3

    def tick(self, registry: Registry) -> Any:
        self.clock.advance(10)
        return registry.tick(int(self.clock.time()), 10)

    def check(self) -> None:
        """What went in properly came out."""
        self.depth = DEEPEST  # nobody acts any more
        window = self.tick(self.proper).cumulative
        found = {
            "counted": window.counters.get("counted", 0),
            "timed": window.timers["timed"].count if "timed" in window.timers else 0,
            "added": len(window.uniques.get("added", ())),
            "changed": window.gauges.get("changed", 0),
            "fed": window.counters.get("fed", 0),
            "distributed": self.distribution.freeze().count,
        }
        assert found == self.expected, f"{found} is not {self.expected}"
        assert self.proper.drops.totals() == {}, self.proper.drops.totals()
        for distribution in self.objects:
            if type(distribution) is Distribution:
                values, weights = distribution.freeze()._sorted()
                assert all(map(math.isfinite, values))
                assert all(weight > 0 for weight in weights)
                count = math.fsum(weights)
                assert (
                    distribution.count == count or math.isclose(distribution.count, count) or not math.isfinite(count)
                )


@cache
def names_of(kind: type) -> list[str]:
    return sorted({name for base in kind.__mro__ if base is not object for name in vars(base)} - LEFT_ALONE)


def case(seed: int) -> None:
    world = World(seed)
    for _ in range(world.rng.randrange(STEPS)):
        world.step()
    world.check()
    world.objects.clear()


# -- the process that runs the cases, and the one that watches it


def run(end: float, first: int, now_at: mmap.mmap) -> None:
    number, warm = 0, 0
    gc.freeze()  # what is here by now lives on: no need to look through it each time
    while time.monotonic() < end:
        now_at[:8] = (first + number).to_bytes(8, "little")
        signal.alarm(LONGEST)
        case(first + number)
        number += 1
        now_at[8:16] = number.to_bytes(8, "little")
        if number == 300:
            warm = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm
    assert number < 600 or grown < 500_000, f"memory grew by {grown} KiB after the first 300 cases"


def watch(work: Callable[[mmap.mmap], None]) -> str | None:
    """Do the work in a child; return how it ended, if not well."""
    now_at = mmap.mmap(-1, 16)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(now_at)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seed, cases = (int.from_bytes(now_at[at : at + 8], "little") for at in (0, 8))
    if not status:
        print(f"{cases} cases: no crash, and nothing lost")
        return None
    how = f"died of {signal.Signals(-status).name}" if status < 0 else "failed"
    return f"case {seed} {how}: python -m tests.fuzz.types 1 {seed}"


READABLE, _WRITTEN = os.pipe()
os.write(_WRITTEN, b"x")
_SENDING, _RECEIVING = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
RECEIVING = _RECEIVING.fileno()


def main(arguments: Sequence[str]) -> str | None:
    seconds = float(arguments[0])
    first = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(2**32)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda unraisable: None
    instrument_module._PATIENCE = 0.0  # a lock that is garbage is waited for in vain
    threading.excepthook = lambda arguments: None
    print(f"from seed {first}")
    return watch(lambda now_at: run(time.monotonic() + seconds, first, now_at))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
