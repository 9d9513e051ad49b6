"""What a service manager hears, on a real Unix datagram socket."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.service import Notifier
from tests.sockets import datagram_server


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A manager that listens at `notify` in the current directory."""
    monkeypatch.chdir(tmp_path)
    with datagram_server("notify") as sock:
        yield sock


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_what_is_told(manager):
    """Each state is one datagram of assignments, as sd_notify(3) has them."""
    notifier = Notifier("notify", watchdog=10)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready("udp://127.0.0.1:8125")
    notifier.alive()
    notifier.reloading()
    notifier.unwell("two\nlines")
    notifier.stopping()
    assert heard(manager) == ["READY=1", "STATUS=udp://127.0.0.1:8125"]
    assert heard(manager) == ["WATCHDOG=1"]
    reloading, stamp = heard(manager)
    assert reloading == "RELOADING=1"
    name, _, micros = stamp.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(micros) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert heard(manager) == ["STATUS=two lines"]
    assert heard(manager)[0] == "STOPPING=1"


def test_an_abstract_address(manager):
    """An address that starts with @ has no file."""
    name = f"metricslib-test-{os.getpid()}"
    with datagram_server(f"\0{name}") as abstract:
        Notifier(f"@{name}").alive()
        assert heard(abstract) == ["WATCHDOG=1"]


def test_without_a_manager_nothing_is_told_and_nothing_goes_wrong(caplog):
    """Started by hand, there is nobody to tell."""
    notifier = Notifier.of_environment({}, 1)
    notifier.ready("")
    assert notifier.watchdog == 0
    assert not caplog.text


def test_a_manager_that_is_gone_is_logged_once(caplog, tmp_path):
    """Nothing is raised, for measuring goes on."""
    notifier = Notifier(str(tmp_path / "nobody"))
    with caplog.at_level(logging.WARNING):
        notifier.ready("")
        notifier.alive()
    assert caplog.text.count("service manager cannot be notified") == 1


@pytest.mark.parametrize(
    ("given", "watchdog"),
    [
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "7"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "8"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_PID": "7"}, 0),
    ],
)
def test_the_environment_tells_whom_and_how_often(given, watchdog):
    """The watchdog is ours only if it was set for our process; what was read is left to no child of ours."""
    environ = {"NOTIFY_SOCKET": "/run/notify", "HOME": "/", **given}
    assert Notifier.of_environment(environ, 7).watchdog == watchdog
    assert environ == {"HOME": "/"}
