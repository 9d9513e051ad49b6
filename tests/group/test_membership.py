"""A flusher's part in a group: whatever fails, each thing measured is in the files of exactly one slot."""

import os
import stat
from pathlib import Path

import pytest

from metricslib import Registry
from metricslib.group.membership import Membership
from metricslib.testing import ManualClock
from metricslib.window import Window

BEGIN = 1_700_000_000
SLOT = BEGIN + 10


@pytest.fixture
def sent() -> dict[int, Window]:
    return {}


class Member:
    """A member with a registry and a clock, whose intervals end when the test says so."""

    def __init__(self, folder: Path, sent: dict[int, Window]) -> None:
        self.registry = Registry(clock=ManualClock(BEGIN))
        self.hits = self.registry.counter("hits")
        self.membership = Membership(
            folder, self.registry, 10, "", lambda window: sent.__setitem__(window.end, window), dict
        )
        self.membership.begin(BEGIN)

    def tick(self, stamp: int) -> None:
        self.membership.close(self.registry.tick(stamp, 10), stamp, closes=True)
        self.membership.step(stamp + 10, stamp + 1.3)


@pytest.fixture
def member(tmp_path, sent):
    made: list[Member] = []

    def member() -> Member:
        made.append(Member(tmp_path / "group", sent))
        return made[-1]

    yield member
    for each in made:
        each.membership.leave(BEGIN + 100_000, lambda: True)


def full_disk(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_a_full_disk_holds_up_what_was_measured_in_memory_and_loses_nothing(member, sent, monkeypatch):
    """Several members: none of them sends what it has alone, for that would overwrite the sum."""
    one, other = member(), member()
    one.hits.inc(1)
    one.membership.step(SLOT, SLOT - 8)
    other.hits.inc(2)
    other.membership.step(SLOT, SLOT - 8)
    with monkeypatch.context() as full:
        full.setattr(os, "write", full_disk)
        for each, n in ((one, 4), (other, 8)):
            each.hits.inc(n)
            with pytest.raises(OSError, match="No space"):
                each.membership.step(SLOT, SLOT - 5)
            with pytest.raises(OSError, match="No space"):
                each.membership.close(each.registry.tick(SLOT, 10), SLOT, closes=True)
        assert sent == {}
    for each in (one, other):
        each.hits.inc(16)
        each.tick(SLOT + 10)
    one.membership.step(SLOT + 20, SLOT + 13)
    assert {stamp: window.counters["hits"] for stamp, window in sent.items()} == {SLOT: 3, SLOT + 10: 44}


def test_a_short_write_is_cut_off_and_written_again(member, sent, monkeypatch):
    one = member()
    one.hits.inc(1)
    one.membership.step(SLOT, SLOT - 8)
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:-1]))
        one.hits.inc(2)
        with pytest.raises(OSError, match="could be written"):
            one.membership.step(SLOT, SLOT - 6)
    one.tick(SLOT)
    assert sent[SLOT].counters == {"hits": 3}


def test_a_file_system_that_became_read_only_keeps_what_was_written_and_goes_on_later(member, sent, monkeypatch):
    one = member()
    one.hits.inc(1)
    one.membership.step(SLOT, SLOT - 8)
    opened = os.open

    def read_only(path, flags, *mode, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system")
        return opened(path, flags, *mode, **options)

    with monkeypatch.context() as mounted:
        mounted.setattr(os, "open", read_only)
        mounted.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
        for stamp in (SLOT, SLOT + 10):
            one.hits.inc(2)
            with pytest.raises(OSError, match="Read-only"):
                one.tick(stamp)
    one.tick(SLOT + 20)
    one.membership.step(SLOT + 30, SLOT + 23)
    assert sum(window.counters["hits"] for window in sent.values()) == 5


def test_all_that_a_group_writes_is_for_its_user_alone(member, tmp_path):
    one = member()
    one.hits.inc(1)
    for stamp in range(SLOT, SLOT + 200, 10):
        one.tick(stamp)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "group").rglob("*")}
    assert len(modes) > 5
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes
