"""``metricslib group``: what there is, who is in it, and what may be removed."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from metricslib.commands import main
from metricslib.flusher import Flusher
from metricslib.group.listing import InUse, clear, clear_pages, describe, groups
from metricslib.group.member import LOCKS, Member, program_name
from metricslib.registry import Registry

URL = "graphite://127.0.0.1:9/?verify=http://127.0.0.1:9/secret"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METRICSLIB_GROUP_DIR", str(tmp_path / "groups"))
    return tmp_path / "groups"


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Flusher]]:
    """Call with a prefix for a running program."""
    started: list[Flusher] = []

    def start(prefix: str, to: str = f"file:{os.devnull}") -> Flusher:
        started.append(Flusher(Registry(), to, prefix=prefix, own=""))
        started[-1].start()
        started[-1].registry.counter("hits").inc()
        return started[-1]

    yield start
    for each in started:
        each.stop(0)


def listed(capsys) -> list[dict[str, object]]:
    assert main(["group", "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_without_groups_that_is_said(capsys):
    assert main(["group"]) == 0
    assert capsys.readouterr().out == "There is no group.\n"
    assert listed(capsys) == []


def test_a_group_is_listed_with_its_members(capsys, program):
    first, _ = program("shop"), program("shop")
    first.flush()
    (found,) = listed(capsys)
    assert found["prefix"] == "shop"
    assert found["destinations"] == ["file:///dev/null"]
    assert found["interval"] == 10
    assert found["written"] is not None
    members = found["members"]
    assert isinstance(members, list)
    assert [(each["number"], each["pid"], each["program"]) for each in members] == [
        (0, os.getpid(), program_name()),
        (1, os.getpid(), program_name()),
    ]
    assert main(["group"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(str(found["folder"]))
    for told in ("shop", f"0: {program_name()}, pid {os.getpid()}, for 0 s", "10 s", "1 open slot"):
        assert told in text


def test_options_of_a_destination_are_not_shown(capsys, program):
    program("shop", URL)
    assert main(["group"]) == 0
    text = capsys.readouterr().out
    assert "graphite://" in text
    assert "secret" not in text


def test_what_a_living_process_uses_is_not_removed(capsys, program, directory):
    living, ended = program("living"), program("ended")
    ended.stop()
    (used,) = (group for group in groups(str(directory)) if group.prefix == "living")
    assert main(["group", "clear", used.folder, "--yes"]) == 1
    assert f"pid {os.getpid()}" in capsys.readouterr().err
    assert main(["group", "clear", "--yes"]) == 0
    assert [group.prefix for group in groups(str(directory))] == ["living"]
    assert living.flush()


def test_it_asks_before_it_removes(capsys, program, directory, monkeypatch):
    program("ended").stop()
    for answer, left, code in (("n\n", 1, 1), ("", 1, 1), ("y\n", 0, 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert main(["group", "clear"]) == code
        assert "Remove these" in capsys.readouterr().out
        assert len(groups(str(directory))) == left


def test_one_is_meant_by_its_path_or_the_begin_of_its_name(capsys, program, directory):
    for prefix in ("one", "two"):
        program(prefix).stop()
    one, two = sorted(groups(str(directory)), key=lambda group: str(group.prefix))
    assert main(["group", "clear", Path(one.folder).name[:12], "--yes"]) == 0
    assert [group.prefix for group in groups(str(directory))] == ["two"]
    assert main(["group", "clear", str(directory), "--yes"]) == 1
    assert "no group" in capsys.readouterr().err
    assert main(["group", "clear", two.folder, "--yes"]) == 0
    assert groups(str(directory)) == []


def test_a_process_that_ships_keeps_it_without_being_a_member(program, directory):
    program("shop").stop()
    (group,) = groups(str(directory))
    folder = Path(group.folder)
    lock = LOCKS.acquire(folder / "ship")
    assert lock is not None
    with pytest.raises(InUse):
        clear(folder)
    LOCKS.release(lock)
    clear(folder)
    assert not folder.exists()


def test_a_member_that_joins_while_it_is_removed_keeps_it(program, directory, monkeypatch):
    program("shop").stop()
    (group,) = groups(str(directory))
    rename = os.rename
    locks = []

    def join_first(source, target):
        if not locks:
            locks.append(LOCKS.acquire(Path(source) / "members" / "0"))
        rename(source, target)

    monkeypatch.setattr(os, "rename", join_first)
    with pytest.raises(InUse):
        clear(Path(group.folder))
    assert [each.folder for each in groups(str(directory))] == [group.folder]
    LOCKS.release(locks[0])


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "metricslib", "group"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "There is no group.\n")
    assert subprocess.run(command[:-1], capture_output=True, check=False).returncode == 2


def test_only_what_an_ended_program_had_for_its_page_is_removed_without_asking(tmp_path):
    directory = tmp_path / "boot"
    directory.mkdir()
    members = {}
    for name, destinations in (("page", []), ("living", []), ("shipped", ["graphite://graphite.example:2003"])):
        member = members[name] = Member(directory / name, 10)
        member.join()
        describe(directory / name, "shop", destinations, 10)
        if name != "living":
            member.leave()
    members["new"] = Member(directory / "new", 10)
    members["new"].join()
    members["new"].leave()  # and it has not said yet what it is
    clear_pages(directory)
    assert sorted(os.listdir(directory)) == ["living", "new", "shipped"]
    members["living"].leave()


def test_the_version_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"metricslib {metadata.version('metricslib')}\n"
