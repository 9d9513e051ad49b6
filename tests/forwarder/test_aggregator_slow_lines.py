"""Lines that are unusual but valid: C reads them itself, and as Python does."""

import pytest

from metricslib._accelerate import load

from .test_aggregator_implementations import Side

UNUSUAL = [
    # Numbers in every form.
    *(
        "a: 5|c",
        "a:5 |ms",
        "a:\t5\u00a0|g",
        "a:\ufeff5\u2003|c",
        "a: |c",
        "a:\u3000|g",
        "a:+5|c",
        "a:+5|g",
        "a: +5|g",
        "a:-5|g",
    ),
    *("a:1e3|c", "a:1E+3|ms", "a:-1.5e-3|g", "a:.5e1|h", "a:5.e2|d", "a:+1e2|g", "a:1e-400|c", "a:1e153|ms", "a:-0|g"),
    *(
        "a:0x10|c",
        "a:0XfF|g",
        "a:0b101|c",
        "a:0B11|ms",
        "a:0o17|c",
        "a:0O7|h",
        f"a:0x{'f' * 16}|g",
        f"a:0b{'1' * 64}|c",
    ),
    *("a: 0x10 |c", "a:123456789012345678901|g", "a:0.1234567890123456789012|c", f"a:{'9' * 127}|g", "a:00005|c"),
    # Types and what stands behind them.
    *("a:1| c", "a:1|ms ", "a:1|\tg\u00a0", "a:1|\u2028h", "a:x| s", "a:1|c |@0.5"),
    *("a:1|c|@1e-1", "a:1|ms|@5E-1", "a:1|c|@0.5 ", "a:1|c|@.5\u00a0\t", "a:1|c|@0.12345678901234567890123"),
    *(
        "a:1|c|T5",
        "a:1|c|T5|@.5",
        "a:1|c|@.5|T5",
        "a:1|c|@.5|x|@.1",
        "a:1|c|@.5|@x",
        "a:1|c|c:in-1",
        "a:1|c|e:it|card:low",
    ),
    *("a:1|c|@.5|c:x:2|ms", "a:1|c|c:x|@.5:2|g", "a:1|c|c:", "a:1|c|@.5|#t:1|c:x|@.1", "a:1|c|#t:1|x|@1e-1 |@.3"),
    # What sums lack.
    *("a:1|ms|@1|~-3.25,40.5", "a:1|h|@.5|~1e-7,-2e+21|#t:1", "a:1:2|d|@.1|~.5,5.", "a:1|ms|@1|~0,0", "a:1|ms|T5|~1,1"),
    *("a:1|ms|@1|~1,2:5|ms", "a:1|c|@1|~1,2", "a:1|s|@1|~1,2", "a:1|ms|@1|#t:1|~1,2", "a:1|ms|@1|x|~1,2|y"),
    *("a:1|ms|@1|~1,2:5|ms|@1|~3,4:6|h|@1|~5,6", "a:1|ms|c:x|@1|~1,2", "a" + ":1|ms|@1|~1,2" * 512),
    # Members of sets, and names.
    *("a:é|s", "a:日本語|s", "a:\U0001f600|s", f"a:{'é' * 256}|s", f"a:{'x' * 256}|s", "a:u:r:n|s", "a:é:ü|s", "a:|s"),
    *("é.z:1|c", "a;t=é:1|c", "a:1|c|#t:é"),
    # Many values.
    "a:" + ":".join(["1.5"] * 100) + "|ms",
    "a" + ":1|c" * 100,
    "a:" + ":".join(["1"] * 1024) + "|c|@.5|#t:1",
    "a" + ":1|c:2|g" * 256,
    "a" + ":0x1F|h|@.5" * 1024,
]
SLOW = [
    *(
        "a:x|c",
        "a:|c",
        "a:1",
        "a:1|x",
        "a:-1|ms",
        "a:1e400|c",
        "a:1e160|ms",
        "a:1|c|@2",
        "a:1|c|@1e-400",
        "a:1|c|x",
        "a:1|c|",
    ),
    *("a:+|c", "a:1e|c", "a:.|c", "a:0x|c", "a:0b2|c", "a:-0x1|c", "a:\x1c5|c", "a:- 5|c", "a:1|c|@ 1", "a:1|c|@1e"),
    *(f"a:0x1{'0' * 16}|g", f"a:{'9' * 128}|g", f"a:{'x' * 257}|s", f"a:{'é' * 257}|s", "a:\udcff|s", "a:1|c|@1|c"),
    *(
        "a:1|\udce2\udc80Tc",
        "a:\udce2\udc8015|c",
        "a:5\udcc2|c",
        "a:5\udce2\udc80\udc8b|c",
        "a:\u200b5|g",
        "a:\u0085 5|g",
    ),
    *("a:1|ms|@1|~", "a:1|ms|@1|~1", "a:1|ms|@1|~1,2,3", "a:1|ms|@1|~1e400,0", "a:1|ms|@1|~1,2 ", "a:1|ms|@1|~x,~1,2"),
    *(
        "a:1|ms|@1|~1,2|~3,4",
        "a:1|ms|@1|~0,0|~3,4",
        "a:1|ms|@1|~x|~3,4",
        "a:1|ms|~1,2",
        "a:1|c|@1|~x",
        "a:-1|ms|@1|~1,2",
    ),
    f"a:1|ms|@1|~{'1' * 128},2",
    "a" + ":1|ms|@1|~1,2" * 600,
    "a:" + ":".join(["1"] * 1024) + "|ms|@1|~1,2",
    "a:" + ":".join(["1"] * 1025) + "|c",
    "a" + ":1|c:2|g" * 257,
    "k" * 4096 + ":1|c",
    "k" * 2000 + ":1|c|#" + "t" * 2096,
]


@pytest.fixture(autouse=True)
def c_is_built():
    if load("forwarder._aggregator") is None:
        pytest.skip("the C implementation was not built, or is not wanted")


def asked(side: Side) -> list[bytes]:
    """The lines that C hands over, from now on."""
    lines: list[bytes] = []
    read = side.aggregator._read

    def noted(line: bytes) -> object:
        lines.append(line)
        return read(line)

    side.aggregator._read = noted
    return lines


def results(side: Side, raw: bytes) -> list[object]:
    """What comes of a line alone, and among others."""
    around = b"\n".join([b"a:1|c\nb:2|ms\nu:1|s"] * 100)
    return [side.do(step) for step in ([raw], "tick", [around + b"\n" + raw + b"\n" + around, raw], "tick")]


@pytest.mark.parametrize("line", UNUSUAL, ids=range(len(UNUSUAL)))
def test_what_is_unusual_is_read_in_c(line):
    """Python is not asked, and would have said the same."""
    python, c = Side(True), Side(False)
    lines = asked(c)
    raw = line.encode()
    assert results(c, raw) == results(python, raw)
    assert lines == []
    assert c.aggregator.counts().bad == 0


@pytest.mark.parametrize("line", SLOW, ids=range(len(SLOW)))
def test_what_only_python_reads_comes_out_the_same(line):
    """Bad lines, which need a reason, and what has no bound in C."""
    python, c = Side(True), Side(False)
    lines = asked(c)
    raw = line.encode("utf-8", "surrogateescape")
    assert results(c, raw) == results(python, raw)
    assert set(lines) == {raw}


def test_lines_of_many_values_fill_batches():
    """Wherever the end of a batch falls, no value is lost or counted twice."""
    for count in (1, 2, 3, 63, 64, 65, 100, 511, 512, 513, 1000, 1024):
        packed = f"p:{':'.join(['1'] * count)}|ms"
        mixed = "m" + ":1|c:2|g" * min(count, 256)
        sides = [Side(pure) for pure in (True, False)]
        chunk = "\n".join(["a:1|c", packed, mixed, "b:1|s"] * 30).encode()
        for step in ([chunk], "tick", [chunk, chunk], "tick"):
            assert sides[1].do(step) == sides[0].do(step)
