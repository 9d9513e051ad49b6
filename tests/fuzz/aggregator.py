"""Feed both aggregators lines over the whole grammar and broken ones, for as long as is said: they must never differ.

``python -m tests.fuzz.aggregator SECONDS [SEED]``. Lines are put together from pieces of the grammar and of the corpus,
and some are then broken: bytes deleted, doubled, overwritten. A failure is printed with its seed, which repeats it.
"""

import logging
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence

from tests.conformance.corpus import CRASHES, LINES
from tests.forwarder.test_aggregator_implementations import Side

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
# Unusual forms: white space of JavaScript's and of others, exponents, other bases, at and beyond what C reads.
NUMBERS += [
    " 5 ",
    " ",
    "\t7\u00a0",
    "\ufeff5",
    "\u20035\u3000",
    "\u20288\u205f",
    "\x1c5",
    "\u00855",
    " +5",
    "-5 ",
    "- 5",
]
NUMBERS += [
    "1E+2",
    "-.5e1",
    "+5e-3",
    "5.e2",
    "1e",
    "1e+",
    "e5",
    ".",
    "-",
    "5e-324",
    "1e-400",
    "1e160",
    "-1e308",
    "1e5x",
]
NUMBERS += [
    "0X1f",
    "0b101",
    "0o17",
    "0B1",
    "0O7",
    "0b2",
    "0o8",
    "0x",
    "-0x1",
    "0xg",
    " 0x1F ",
    "0x" + "f" * 16,
    "0x8" + "0" * 15,
]
NUMBERS += ["0x1" + "0" * 16, "0b" + "1" * 64, "0b1" + "0" * 64, "0o1" + "7" * 21, "0o2" + "0" * 21, "0x20000000000001"]
NUMBERS += ["9" * 127, "9" * 128, "." + "1" * 126, "0" * 126 + "5", "1" * 30 + "e-20"]
MEMBERS = [
    "x",
    "é",
    "日本",
    "\U0001f600",
    "\udcff",
    "\udcc3",
    "\udced\udca0\udc80",
    "\udcc0\udc80",
    "\udcf4\udc90\udc80\udc80",
]
MEMBERS += ["x" * 256, "x" * 257, "é" * 256, "é" * 257, "\U0001f600" * 256, "é" * 255 + "\udcff", "y", " ", "", "0"]
TYPES = [
    "c",
    "ms",
    "g",
    "s",
    "h",
    "d",
    "c",
    "ms",
    "g",
    "s",
    "",
    "q",
    " c",
    "mss",
    "\tms",
    "g\u00a0",
    "\u2003s ",
    "h\x1c",
    "\ufeffd",
]
RATES = ["", "", "", "|@0.1", "|@0.3", "|@1", "|@0", "|@2", "|@x", "|T123", "|T", "|c:in-1", "|@0.5|T1", "|", "|@.25"]
RATES += [
    "|@1e-1",
    "|@0.5 ",
    "|@.5\u00a0",
    "|@ .5",
    "|@+1",
    "|@1e-400",
    "|@1e-320",
    "|@1e-300",
    "|@5E-1\t",
    "|@1e",
    "|@",
]
RATES += ["|@0.5|x|@2", "|T1|@.5", "|@.5|@x", "|x|@.5", "|c:a|@.5", "|@.5|c:a|x", "|card:low", "|e:it-1|c:x|T5", "|T1|"]
RATES += [
    "|c",
    "|@1|c",
    "|@1|c|c:x",
    "|@1|card",
    "|c:",
    "|c:x:",
    "|e:|",
    "|card:a|#t:1",
    "|cards:a",
    "|@.5|c:a:2|ms|@.5",
]
TAGS = ["", "", "", "|#t:1", "|#t:1,u:2", "|#", "|#t", "|#t:1|@0.5", "|#t:1|T12|c:x", "|#t:1|@x", "|#a;b:c", "|#,"]
TAGS += ["|#t:é", "|#t:1|c:x|@1e-1 ", "|#t:1|x|@.5|@.1", "|#t:\udcff"]
ENDS = ["", "", "", "\r", "\r\r", "|", ":"]
BREAKS = b":|#@,;=. \t\r\n/+-cdgmshT_019\xc3\xa9\xff\x00"
Breaker = Callable[[random.Random, bytearray], None]


def line(rng: random.Random) -> str:
    """A line of the grammar, or of the corpus."""
    if rng.random() < 0.05:
        known = rng.choice([*LINES, *CRASHES])
        return known if isinstance(known, str) else known.decode("utf-8", "surrogateescape")
    if rng.random() < 0.02:
        return many(rng)
    pieces = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 70])):
        kind = rng.choice(TYPES)
        values = MEMBERS if "s" in kind and kind != "ms" and rng.random() < 0.7 else NUMBERS
        packed = ":".join(rng.choice(values) for _ in range(rng.choice([1, 1, 1, 2, 5])))
        pieces.append(f"{packed}|{kind}{rng.choice(RATES)}")
    return f"{rng.choice(NAMES)}{rng.choice(['', '', rng.randrange(30)])}:{':'.join(pieces)}{rng.choice(TAGS)}"


def many(rng: random.Random) -> str:
    """A line of many good values, about as many as a batch holds."""
    count = rng.choice([100, 300, 511, 512, 513, 1023, 1024, 1025])
    number, kinds = rng.choice(NUMBERS[:6]), rng.choice([["c"], ["c", "g"], ["ms", "ms", "c"], ["s"]])
    if rng.random() < 0.5:
        return f"{rng.choice(NAMES)}:{':'.join([number] * count)}|{kinds[0]}{rng.choice(TAGS)}"
    pieces = [f":{number}|{kinds[place % len(kinds)]}" for place in range(count)]
    return f"{rng.choice(NAMES)}{''.join(pieces)}{rng.choice(TAGS)}"


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
