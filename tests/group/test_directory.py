"""The private directory of a user's groups, and what is refused in its place."""

import os
from pathlib import Path

import pytest

from metricslib.group.directory import Unusable, boot_id, folder_name, group_directory, make_private, process_group


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_it_is_made_for_this_user_alone(tmp_path):
    found = group_directory(places=[tmp_path], boot="b")
    assert found == tmp_path / f"metricslib-{os.geteuid()}" / "b"
    assert mode(found) == mode(found.parent) == 0o700
    assert group_directory(places=[tmp_path], boot="b") == found


def test_a_configured_directory_may_be_everybody_s_and_is_made(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert group_directory(shared, boot="b") == shared / f"metricslib-{os.geteuid()}" / "b"
    assert group_directory(tmp_path / "new", boot="b").is_dir()
    assert mode(tmp_path / "new") == 0o700


def test_a_configured_directory_that_cannot_be_used_is_no_reason_for_another(tmp_path):
    (tmp_path / "file").touch()
    for unusable in (tmp_path / "file", tmp_path / "absent" / "deep"):
        with pytest.raises(Unusable):
            group_directory(unusable, places=[tmp_path], boot="b")


@pytest.mark.parametrize("how", ["symlink", "file", "open", "absent"])
def test_what_is_not_ours_is_refused_and_the_next_place_taken(tmp_path, how):
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    if how != "absent":
        first.mkdir()
    ours = first / f"metricslib-{os.geteuid()}"
    if how == "symlink":
        ours.symlink_to(second)
    elif how == "file":
        ours.touch()
    elif how == "open":
        ours.mkdir()
        ours.chmod(0o755)
    assert group_directory(places=[first, second], boot="b").is_relative_to(second)
    with pytest.raises(Unusable, match="first"):
        group_directory(places=[first], boot="b")
    assert not first.exists() or list(first.rglob("b")) == []


def test_another_user_s_directory_is_refused(tmp_path, monkeypatch):
    make_private(tmp_path / "ours")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(Unusable, match=f"belongs to user {user}"):
        make_private(tmp_path / "ours")


def test_a_boot_has_a_name_that_can_be_a_directory_s(tmp_path):
    name = tmp_path / "boot_id"
    name.write_text("6f1c-22\n")
    assert boot_id(str(name)) == "6f1c-22"
    for bad in ("", "../up", "\N{SNOWMAN}"):
        name.write_text(bad, encoding="utf-8")
        assert boot_id(str(name)) == "boot"
    assert boot_id(str(tmp_path / "absent")) == "boot"


def test_the_first_half_of_a_folder_s_name_is_of_what_is_shipped_the_second_of_how():
    what, how = ("shop", "stats", "graphite://g"), {"interval": 10, "format": 1}
    first, second = folder_name(what, how).split("-")
    assert folder_name(list(what), dict(reversed(how.items()))) == f"{first}-{second}"
    assert folder_name(what, {**how, "interval": 60}).split("-")[0] == first
    assert folder_name(what, {**how, "interval": 60}) != f"{first}-{second}"
    for other in (("shop", "stats"), ("shop.stats", "graphite://g"), ("shops", "tats", "graphite://g")):
        assert folder_name(other, how).split("-")[0] != first


def test_a_process_group_is_the_same_for_its_processes_and_no_later_one():
    mine = process_group()
    assert process_group(os.getpgrp()) == mine
    assert process_group(1) != mine
    assert "started at unknown" in process_group(4_194_304)  # above the largest pid
