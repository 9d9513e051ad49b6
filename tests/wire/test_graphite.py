"""Lines that Graphite reads, with numbers as statsd writes them."""

import json
import shutil
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from metricslib.wire.graphite import Pairs, decode, encode, encode_points, number

NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53))


@given(NUMBERS)
def test_a_number_reads_back_the_same(value: float):
    """No digit is lost on the way."""
    assert float(number(value)) == float(value)


def test_numbers_are_written_as_javascript_writes_them(need):
    """statsd is JavaScript, and dashboards were built on what it sends: compared with node itself."""
    need("node")
    values = [0.0, -0.0, 5.0, 0.1 + 0.2, 1e20, 1e21, 1.5e21, 1e-6, 1e-7, 1.25e-7, -123456789.5, 5e-324, 1.7e308]
    values += [10.0**power for power in range(-30, 31)] + [1.2345678901234567 * 10.0**power for power in range(-30, 31)]
    script = f"console.log(JSON.stringify({json.dumps(values)}.map(String)))"
    shown = subprocess.run([shutil.which("node"), "-e", script], check=True, capture_output=True, text=True).stdout
    assert [number(value) for value in values] == json.loads(shown)


def test_a_line_is_path_value_timestamp():
    """One line a value, in the order given, all with the window's stamp."""
    assert encode(Pairs(["a.b;c=d", "e"], [5.0, 0.25]), 1234) == b"a.b;c=d 5 1234\ne 0.25 1234\n"
    assert encode(Pairs(), 1234) == b""


def test_a_large_window_is_whole_and_in_order():
    """However many lines it has, none is missing, twice or out of place."""
    for count in (4095, 4096, 4097, 10_000):
        pairs = Pairs([f"p{number}" for number in range(count)], [number % 7 / 2 for number in range(count)])
        assert list(decode(encode(pairs, 5))) == [(path, value, 5) for path, value in pairs]


def test_points_have_stamps_of_their_own():
    """Relayed points keep the time they came with."""
    assert encode_points([("a", 1, 10), ("b", 2.5, 20)]) == b"a 1 10\nb 2.5 20\n"


@given(st.lists(st.tuples(st.from_regex(r"[a-z.;=é]{1,20}", fullmatch=True), NUMBERS, st.integers(0, 2**40))))
def test_decode_reads_what_encode_wrote(points: list[tuple[str, float, int]]):
    """Path, value and stamp come back."""
    assert list(decode(encode_points(points))) == points


def test_decode_skips_what_is_no_finite_point():
    """A damaged line costs itself alone."""
    assert list(decode(b"a 1 10\nb 2\nc x 10\nd nan 10\ne inf 10\nf 3 1e1\ng 4 11\n")) == [("a", 1, 10), ("g", 4, 11)]
