"""Frames that carbon takes: what is in them is what the lines say, and none is too large."""

import pickle
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.wire import graphite
from metricslib.wire.pickle import FRAME, POINTS, encode_points, size

NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53))
PATHS = st.from_regex(r"[a-z.;=é]{1,20}", fullmatch=True)
CARBONS_LIMIT = 1 << 20


def unframed(frame: bytes) -> list:
    (length,) = struct.unpack("!I", frame[:4])
    assert length == len(frame) - 4
    return pickle.loads(frame[4:])


def decode(frames: Iterator[bytes]) -> list[graphite.Point]:
    return [(path, value, stamp) for frame in frames for path, (stamp, value) in unframed(frame)]


@given(st.lists(st.tuples(PATHS, NUMBERS, st.integers(0, 2**32 - 1))))
def test_frames_say_what_lines_say(points: list[graphite.Point]):
    """Path, value and stamp, in order."""
    assert decode(encode_points(points)) == list(graphite.decode(graphite.encode_points(points)))


def test_values_are_floats_and_stamps_whole_numbers():
    """As carbon's own clients send them, so that no receiver needs to know another type."""
    (frame,) = encode_points([("a", 1, 10)])
    assert repr(unframed(frame)) == "[('a', (10, 1.0))]"


@pytest.mark.parametrize("points", [0, 1, POINTS - 1, POINTS, POINTS + 1, 3 * POINTS])
def test_a_frame_has_a_bounded_number_of_points(points: int):
    """The last frame has what is left; for no points there is no frame."""
    frames = list(encode_points([("a.b", number, 10) for number in range(points)]))
    assert [len(unframed(frame)) for frame in frames] == [
        min(POINTS, points - first) for first in range(0, points, POINTS)
    ]


@pytest.mark.parametrize("path", ["a" * 5000, "é" * 2500, "a" * (FRAME - 64)])
def test_long_paths_make_frames_end_early(path: str):
    """carbon closes the connection at a frame of more than a mebibyte, and the rest is gone."""
    assert size(path) <= FRAME
    frames = list(encode_points([(f"{path[:-4]}{number:04d}", number, 2**32 - 1) for number in range(300)]))
    assert max(map(len, frames)) <= FRAME < CARBONS_LIMIT
    assert sum(len(unframed(frame)) for frame in frames) == 300


def test_no_frame_is_larger_than_the_sizes_of_its_points():
    """Also with the longest stamps, values and marks."""
    points = [(f"some.path.{number}", 1 / 3, 2**32 - 1) for number in range(POINTS)]
    (frame,) = encode_points(points)
    assert len(frame) <= sum(size(path) for path, _, _ in points)
