"""``metricslib doctor``: what a configuration comes to, and what would be lost."""

import json
import os
import re
import socket
from pathlib import Path

import pytest

from metricslib.commands import main
from metricslib.commands.doctor import Diagnosis, diagnose
from metricslib.flusher import Flusher
from metricslib.registry import Registry
from tests.peers import GraphitePeer

HOST = socket.gethostname().split(".")[0]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TO", "PREFIX", "INTERVAL", "DISABLED"):
        monkeypatch.delenv(f"METRICSLIB_{name}", raising=False)
    monkeypatch.setenv("METRICSLIB_GROUP_DIR", str(tmp_path / "groups"))
    return tmp_path / "groups"


def problems(found: Diagnosis) -> str:
    return "\n".join(finding.text for finding in found.findings if finding.problem)


def notes(found: Diagnosis) -> str:
    return "\n".join(finding.text for finding in found.findings if not finding.problem)


def found_for(directory: Path, to: list[str] | None = None, prefix: str | None = None, **variables: str) -> Diagnosis:
    environ = {f"METRICSLIB_{name}": text for name, text in variables.items()}
    return diagnose({"METRICSLIB_GROUP_DIR": str(directory), **environ}, to, prefix)


def test_a_configuration_that_is_well(capsys, monkeypatch):
    peer = GraphitePeer()
    try:
        monkeypatch.setenv("METRICSLIB_TO", peer.url)
        monkeypatch.setenv("METRICSLIB_PREFIX", "shop.{host}")
        assert main(["doctor"]) == 0
        text = capsys.readouterr().out
        assert f"{peer.url}: can be reached" in text
        assert f"shop.{HOST}" in text
        assert text.endswith("No problem found.\n")
        assert main(["doctor", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["destinations"] == [{"label": peer.url, "error": None}]
        assert (found["prefix"], found["interval"], found["findings"]) == (f"shop.{HOST}", 10, [])
        assert peer.values == {}
    finally:
        peer.close()


def test_without_a_destination_that_is_said(directory):
    found = found_for(directory)
    assert "nothing says where to send" in notes(found)
    assert not problems(found)


@pytest.mark.parametrize(
    ("to", "kept"),
    [("graphite://127.0.0.1:1", "in the files of the group"), ("statsd+tcp://127.0.0.1:1", "nowhere: it is lost")],
)
def test_what_would_be_lost_at_a_destination_that_is_away(directory, to, kept):
    found = found_for(directory, [to])
    assert "Connection refused" in problems(found)
    assert kept in problems(found)
    assert main(["doctor", "--to", to]) == 1


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("grafite://x", r"start\(\) raises an exception: .*did you mean graphite"),
        ("file:///no/such/folder/x.jsonl", "does not exist"),
        ("whisper:///proc/1/none", "cannot be written|does not exist"),
        ("graphite://no-such-host.invalid", "cannot be reached"),
        ("forwarder+unix:///no/such.sock", "No such file"),
        ("graphite://127.0.0.1:1,127.0.0.1:1?hash=carbon_ch", "refused|start"),
    ],
)
def test_each_destination_is_tried(directory, to, told):
    assert re.search(told, problems(found_for(directory, [to])))


def test_what_is_no_problem_is_a_note(directory, tmp_path):
    found = found_for(
        directory, ["statsd://127.0.0.1:8125", f"auto://{tmp_path}/none.sock", "console:", f"file:{tmp_path}/x"], "shop"
    )
    assert not problems(found)
    assert "datagrams may be lost" in notes(found)
    assert "nothing is sent until it is there" in notes(found)
    assert "does not name this host" in notes(found)
    assert "{pid}" in notes(found_for(directory, prefix="shop.{pid}"))


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"INTERVAL": "soon"}, "METRICSLIB_INTERVAL"),
        ({"DISABLED": "1", "TO": "console:"}, "METRICSLIB_DISABLED is set"),
        ({"PREFIX": "{hots}"}, "start() raises an exception"),
    ],
)
def test_the_environment_is_judged(directory, variables, told):
    assert told in problems(found_for(directory, **variables))


def test_a_directory_that_others_may_enter_is_a_problem(directory):
    directory.mkdir()
    next_to_it = directory / f"metricslib-{os.geteuid()}"
    next_to_it.mkdir(mode=0o755)
    assert "overwrite each other's values" in problems(found_for(directory))


def test_living_groups_are_shown_and_two_that_send_the_same_paths_are_a_problem(directory, capsys, tmp_path):
    started = [Flusher(Registry(), f"file:{tmp_path}/x", interval=interval, own="") for interval in (10, 20)]
    try:
        for each in started:
            each.start()
        assert "overwrite each other's values" in problems(found_for(directory))
        main(["doctor"])
        assert capsys.readouterr().out.count("members       0: ") == 2
    finally:
        for each in started:
            each.stop()
    assert not problems(found_for(directory))
