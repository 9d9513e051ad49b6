"""The command line: what it prints and with which code it ends, short of running a daemon."""

import re
import socket

import pytest

from forwarder.cli import main
from forwarder.config import OPTIONS, Config


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """What the machine has configured is none of these tests' business."""
    for name in ("FORWARDER_CONFIG", *("FORWARDER_" + name.upper().replace(".", "_") for name in OPTIONS)):
        monkeypatch.delenv(name, raising=False)


def test_check_config_prints_what_would_be_in_effect(capsys, tmp_path, monkeypatch):
    """Flag, environment and file are settled, and the result is a configuration file."""
    (tmp_path / "f.toml").write_text('interval = 60\nprefix = "file"\n')
    monkeypatch.setenv("FORWARDER_PREFIX", "env")
    flags = [
        "--config",
        str(tmp_path / "f.toml"),
        "--to",
        "graphite://h?timeout=9",
        "--to",
        "file:///x",
        "--http",
        "off",
    ]
    assert main([*flags, "--check-config"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[:4] == [
        'listen = ["udp://127.0.0.1:8125", "tcp://127.0.0.1:8125"]',
        'to = ["graphite://h?timeout=9", "file:///x"]',
        "interval = 60",
        'prefix = "env"',
    ]
    assert err == ""


def test_the_file_may_be_named_in_the_environment(capsys, tmp_path, monkeypatch):
    """``FORWARDER_CONFIG`` is ``--config``, and the flag wins."""
    (tmp_path / "env.toml").write_text("interval = 60\n")
    (tmp_path / "flag.toml").write_text("interval = 30\n")
    monkeypatch.setenv("FORWARDER_CONFIG", str(tmp_path / "env.toml"))
    assert main(["--check-config"]) == 0
    assert "interval = 60" in capsys.readouterr().out
    assert main(["--check-config", "--config", str(tmp_path / "flag.toml")]) == 0
    assert "interval = 30" in capsys.readouterr().out


def test_without_anything_the_defaults_are_shown(capsys):
    """They are those of :class:`Config`."""
    assert main(["--check-config"]) == 0
    assert capsys.readouterr().out == Config().as_toml()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--interval", "0"], "--interval: '0' is not a whole number from 1 to 2^30"),
        (["--listen", "upd://h"], "--listen: 'upd://h' has an unknown scheme; did you mean udp?"),
        (["--http", "8127"], "--http: '8127' is not HOST:PORT, with an IPv6 address in brackets, or off"),
        (["--percentiles", "200"], "--percentiles: '200' is not percents from -100 to 100, and not 0"),
        (["--config", "/nowhere/f.toml"], "/nowhere/f.toml: cannot be read: No such file or directory"),
        (["--config", "/"], "/: cannot be read: Is a directory"),
    ],
)
def test_a_wrong_configuration_ends_with_2_and_one_line(flags, message, capsys):
    """Whether it is only checked or to be run, and with no traceback."""
    for more in ([], ["--check-config"]):
        assert main([*flags, *more]) == 2
        assert capsys.readouterr() == ("", f"forwarder: {message}\n")


def test_a_file_that_is_no_text_is_refused(capsys, tmp_path):
    """Bytes that are no UTF-8 are an error like any other."""
    (tmp_path / "f.toml").write_bytes(b"\xff")
    assert main(["--config", str(tmp_path / "f.toml")]) == 2
    assert capsys.readouterr().err == f"forwarder: {tmp_path}/f.toml: is not in UTF-8\n"


def test_a_destination_that_cannot_work_ends_with_2_and_tells_no_secret(capsys):
    """``--check-config`` makes the destinations, so a checked configuration does start."""
    for more in ([], ["--check-config"]):
        assert main(["--to", "grafite://me:secret@h", *more]) == 2
        err = capsys.readouterr().err
        assert err.startswith("forwarder: destination 'grafite://")
        assert err.endswith("unknown scheme; did you mean graphite:\n")
        assert "secret" not in err
        assert err.count("\n") == 1


def test_an_unknown_flag_ends_with_2(capsys):
    """And names the nearest; abbreviations are no flags, for they would change their meaning with a new one."""
    for flag in ("--intervall", "--int"):
        with pytest.raises(SystemExit, match="2"):
            main([flag, "5"])
        assert f"error: unknown argument: {flag}; did you mean --interval?\n" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--too", "graphite://me:s3cret@h"], ["--too=graphite://h:s3cret"], ["h:s3cret"]])
def test_an_unknown_argument_is_told_without_secrets(given, capsys):
    """Whatever it was meant to be."""
    with pytest.raises(SystemExit, match="2"):
        main(given)
    told = capsys.readouterr().err
    assert "error: unknown argument: " in told
    assert "s3cret" not in told


def test_a_taken_port_ends_with_1_and_one_line(capsys, monkeypatch):
    """The line names the address; nothing is printed that a supervisor could take for readiness."""
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert main(["--listen", taken, "--http", "off"]) == 1
    assert capsys.readouterr().err == f"forwarder: cannot listen on {taken}: Address already in use\n"


def test_version_is_that_of_the_package(capsys):
    """One number for both."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert re.fullmatch(r"forwarder (\d+\.\d+\S*|\(not installed\))\n", capsys.readouterr().out)


def test_help_names_every_flag_and_its_default(capsys):
    """It can be read without the documentation."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, option in OPTIONS.items():
        assert not option.metavar or f"--{name.replace('_', '-')} {option.metavar}" in text
    assert "(udp://127.0.0.1:8125, tcp://127.0.0.1:8125)" in text
