"""Feed both intakes lines over the whole grammar and broken ones, for as long as is said: they must never differ.

``python -m tests.fuzz.intake SECONDS [SEED]``. Lines are put together from pieces of the grammar and of the corpus, and
some are then broken: bytes deleted, doubled, overwritten. What fails is told with its seed, which finds it again.
"""

import logging
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence

from tests.conformance.corpus import CRASHES, LINES
from tests.forwarder.test_intake_twins import Side

NAMES = ["a", "b", "web.hits", "a b", "x/y", "é.z", "constructor", "", "a;t=1", "a;u=2;t=1", "k" * 60, "_e", "\ufeff"]
NUMBERS = [
    "1",
    "0",
    "-1",
    "+2",
    "0.1",
    "1.5",
    "9007199254740993",
    "1e3",
    "0x10",
    " 5",
    ".5",
    "5.",
    "-0",
    "",
    "x",
    "NaN",
]
NUMBERS += ["123456789.123456789", "9" * 19, "9" * 20, "0." + "3" * 17, "1e400", "12345678901234567"]
TYPES = ["c", "ms", "g", "s", "h", "d", "c", "ms", "g", "", "q", " c", "mss"]
RATES = ["", "", "", "|@0.1", "|@0.3", "|@1", "|@0", "|@2", "|@x", "|T123", "|T", "|c:in-1", "|@0.5|T1", "|", "|@.25"]
TAGS = ["", "", "", "|#t:1", "|#t:1,u:2", "|#", "|#t", "|#t:1|@0.5", "|#t:1|T12|c:x", "|#t:1|@x", "|#a;b:c", "|#,"]
ENDS = ["", "", "", "\r", "\r\r", "|", ":"]
BREAKS = b":|#@,;=. \t\r\n/+-cdgmshT_019\xc3\xa9\xff\x00"
Breaker = Callable[[random.Random, bytearray], None]


def line(rng: random.Random) -> str:
    """A line of the grammar, or of the corpus."""
    if rng.random() < 0.05:
        known = rng.choice([*LINES, *CRASHES])
        return known if isinstance(known, str) else known.decode("utf-8", "surrogateescape")
    pieces = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 70])):
        packed = ":".join(rng.choice(NUMBERS) for _ in range(rng.choice([1, 1, 1, 2, 5])))
        pieces.append(f"{packed}|{rng.choice(TYPES)}{rng.choice(RATES)}")
    return f"{rng.choice(NAMES)}{rng.choice(['', '', rng.randrange(30)])}:{':'.join(pieces)}{rng.choice(TAGS)}"


def delete(rng: random.Random, raw: bytearray) -> None:
    place = rng.randrange(len(raw))
    del raw[place : place + rng.choice([1, 1, 5])]


def overwrite(rng: random.Random, raw: bytearray) -> None:
    raw[rng.randrange(len(raw))] = rng.choice(BREAKS)


def insert(rng: random.Random, raw: bytearray) -> None:
    raw.insert(rng.randrange(len(raw) + 1), rng.choice(BREAKS))


def double(rng: random.Random, raw: bytearray) -> None:
    place = rng.randrange(len(raw))
    raw[place:place] = raw[place : place + 8] * rng.choice([1, 2, 600])


BREAKERS: Sequence[Breaker] = (delete, overwrite, overwrite, insert, double)


def datagram(rng: random.Random) -> bytes:
    lines = [line(rng) + rng.choice(ENDS) for _ in range(rng.choice([1, 1, 3, 30]))]
    raw = bytearray("\n".join(lines).encode("utf-8", "surrogateescape"))
    for _ in range(rng.choice([0, 0, 1, 3])):
        if raw:
            rng.choice(BREAKERS)(rng, raw)
    return bytes(raw)


def steps(rng: random.Random) -> list[object]:
    """What is done to both, in this order."""
    done: list[object] = []
    for _ in range(rng.randrange(1, 8)):
        kind = rng.random()
        if kind < 0.7:
            done.append([datagram(rng) for _ in range(rng.choice([1, 2, 8]))])
        elif kind < 0.9:
            done.append("tick")
        else:
            done.append(
                ("forget", rng.choice(["counter", "timer", "gauge", "unique"]), rng.choice(["a", "b", "overflow"]))
            )
    return [*done, "tick", "tick"]


def run(seconds: float, seed: int) -> int:
    """Return how many cases were the same; an AssertionError tells of the first that was not."""
    end, cases, warm = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        rng = random.Random(seed + cases)
        caps = rng.choice([{}, {"max_series": 6}, {"max_tag_sets": 2}])
        sides = [Side(pure, **caps) for pure in (True, False)]
        for step in steps(rng):
            python, c = (side.do(step) for side in sides)
            assert c == python, f"seed {seed + cases} and caps {caps}, at {step!r}:\n{c}\nis not\n{python}"
        cases += 1
        if cases == 200:
            warm = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm
    assert cases < 400 or grown < 200_000, f"memory grew by {grown} KiB after the first 200 cases"
    return cases


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    first = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(2**32)
    print(f"{run(float(sys.argv[1]), first)} cases from seed {first}: all the same")
