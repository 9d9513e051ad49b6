"""Folders of other groups: those that write the same paths are found, and those of other boots go."""

import os
from pathlib import Path

import pytest

from metricslib.group.listing import clear_other_boots, describe, rivals
from metricslib.group.member import Member

from .model import hits

GRAPHITE, OTHER = "graphite://a:2003", "graphite://b:2003"
NOW = 1_700_000_000.0
DAY = 86_400


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    boot = tmp_path / "metricslib-0" / "boot"
    boot.mkdir(parents=True, mode=0o700)
    return boot


@pytest.mark.parametrize(
    ("prefix", "destinations", "found"),
    [
        ("shop", [GRAPHITE], True),
        ("shop", [OTHER, GRAPHITE], True),
        ("shop", [OTHER], False),
        ("other", [GRAPHITE], False),
        ("shop", ["file:metrics.jsonl"], False),  # of another directory
    ],
)
def test_a_living_group_that_writes_the_same_paths_is_found(boot, prefix, destinations, found):
    mine, theirs = Member(boot / "a-1", 10), Member(boot / "a-2", 5)
    for member in (mine, theirs):
        member.join()
    describe(mine.folder, "shop", [GRAPHITE, "file:metrics.jsonl"], 10, "stats")
    describe(theirs.folder, prefix, destinations, 5, "stats")
    assert rivals(mine.folder) == [theirs.folder] * found
    theirs.leave()
    assert rivals(mine.folder) == []  # none is left that would write
    mine.leave()


def age(path: Path, seconds: float) -> None:
    for each in (*path.rglob("*"), path):
        os.utime(each, (NOW - seconds, NOW - seconds))


def test_folders_of_other_boots_go_a_day_after_they_were_written_last(boot, caplog):
    for name, seconds in (("old", DAY + 60), ("empty", DAY + 60), ("recent", DAY - 60), ("used", DAY + 60)):
        other = Member(boot.parent / name / "group", 10)
        (boot.parent / name).mkdir()
        other.append(int(NOW) - 100, hits(1), {}, NOW)
        if name != "used":
            other.leave()
        age(boot.parent / name, seconds)
    mine = Member(boot / "group", 10)
    mine.append(int(NOW) - 100, hits(1), {}, NOW)
    age(boot, 9 * DAY)
    clear_other_boots(boot, NOW)
    assert sorted(path.name for path in boot.parent.iterdir()) == ["boot", "recent", "used"]
    assert sorted(path.name for path in boot.iterdir()) == ["group"]
    assert "removed" in caplog.text
    assert "with 1 intervals that were open" in caplog.text
    mine.leave()
    other.leave()
