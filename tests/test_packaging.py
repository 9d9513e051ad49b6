"""The files under packaging/ do what their page says: systemd's own tools judge the units, the rest is read here."""

import configparser
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forwarder.addresses import parse
from forwarder.cli import main
from forwarder.config import Config

ROOT = Path(__file__).parent.parent
SYSTEMD = ROOT / "packaging" / "systemd"
SERVICE = SYSTEMD / "forwarder.service"
SOCKET = SYSTEMD / "forwarder.socket"
WORKFLOWS = ROOT / ".github" / "workflows"
SUPERVISOR = ROOT / "packaging" / "supervisor" / "forwarder.conf"


def unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """Return section → option → values, in order."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = sections[line.strip("[]")] = {}
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return sections


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Copies of both units, that name a program which exists on this machine."""
    program = unit(SERVICE)["Service"]["ExecStart"][0].split()[0]
    for path in (SERVICE, SOCKET):
        (tmp_path / path.name).write_text(path.read_text().replace(program, sys.executable))
    return [str(tmp_path / path.name) for path in (SERVICE, SOCKET)]


def test_systemd_understands_the_units(units, need: Callable[..., None]):
    """systemd-analyze has nothing to say against them."""
    need("systemd-analyze")
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "forwarder" in line]
    assert (done.returncode, ours) == (0, [])


def test_systemd_finds_the_service_little_exposed(units, need: Callable[..., None]):
    """Its own measure, from 0 to 10, is at most 1.5."""
    need("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", units[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_has_no_privileges_and_a_read_only_system():
    """What was promised stands in the unit, with no tool of systemd's to see it."""
    service = unit(SERVICE)["Service"]
    assert service["Type"] == ["notify"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == [""]
    assert service["ProtectSystem"] == ["strict"]
    for name in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "PrivateUsers"):
        assert service[name] == ["yes"], name
    assert service["PrivateMounts"] == ["yes"]
    assert service["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX"]


def test_memory_and_descriptors_are_limited_and_enough():
    """Both managers give as many descriptors; memory has a bound in the unit."""
    service = unit(SERVICE)["Service"]
    assert service["MemoryMax"] == ["50%"]
    assert service["LimitNOFILE"] == ["65536"]
    assert supervised()["command"].startswith("/usr/bin/prlimit --nofile=65536 ")


def test_addresses_that_are_allowed_are_ready_to_be_filled_in(need: Callable[..., None], tmp_path: Path):
    """Without their number signs the two lines are what systemd understands."""
    need("systemd-analyze")
    text = SERVICE.read_text().replace("#IPAddress", "IPAddress")
    assert "\nIPAddressDeny=any\nIPAddressAllow=localhost " in text
    program = unit(SERVICE)["Service"]["ExecStart"][0].split()[0]
    copy = tmp_path / SERVICE.name
    copy.write_text(text.replace(program, sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "forwarder" in line]) == (0, [])


def test_actions_of_workflows_are_pinned_by_commit():
    """A tag can be moved, by whoever takes over the account it is in; the version stands behind it for people."""
    used = [line for path in WORKFLOWS.glob("*.yml") for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_there_is_time_to_deliver_what_is_left():
    """Both managers wait longer than the forwarder takes by default, and longer than its patience when it reloads."""
    service = unit(SERVICE)["Service"]
    assert int(service["TimeoutStopSec"][0]) > Config().stop_timeout
    assert int(service["WatchdogSec"][0]) > Config().stop_timeout
    assert int(supervised()["stopwaitsecs"]) > Config().stop_timeout


def test_the_socket_unit_has_the_default_listeners():
    """With no configuration but a destination, every socket that it hands in finds its listener."""
    socket = unit(SOCKET)["Socket"]
    schemes = {"ListenDatagram": "udp", "ListenStream": "tcp"}
    handed = {parse(f"{scheme}://{address}") for name, scheme in schemes.items() for address in socket[name]}
    assert handed == {parse(url) for url in Config().listen}


def supervised() -> dict[str, str]:
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
    parser.read_string(SUPERVISOR.read_text())
    return dict(parser["program:forwarder"])


@pytest.mark.parametrize("command", ["systemd", "supervisor"])
def test_the_command_starts_a_forwarder(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The command line in both is one that the forwarder understands."""
    given = unit(SERVICE)["Service"]["ExecStart"][0] if command == "systemd" else supervised()["command"]
    given = given.removeprefix("/usr/bin/prlimit --nofile=65536 ")
    program, flag, file = shlex.split(given)
    assert (program, flag, file) == ("/opt/forwarder/bin/forwarder", "--config", "/etc/forwarder.toml")
    config = tmp_path / "forwarder.toml"
    config.write_text('to = ["graphite://graphite.example"]\n')
    assert main([flag, str(config), "--check-config"]) == 0
    assert "graphite.example" in capsys.readouterr().out
