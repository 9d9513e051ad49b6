"""What the documentation tells a reader to type works: code in the interactive interpreter, commands in a shell.

Of console blocks, the commands that ask a forwarder or send to it are run, with the tools of Debian 12 alone.
"""

import re
import subprocess
import sys
from codeop import CommandCompiler
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forwarder.config import of_flags, settle
from forwarder.daemon import Daemon

from .test_docs import PAGES, ROOT, blocks


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_code_of_a_page_can_be_typed(page: str):
    """Into the interactive interpreter, which ends a block at an empty line, and nowhere else."""
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.info.startswith("python"):
            compiler, typed = CommandCompiler(), list[str]()
            for line in [*block.text.splitlines(), ""]:
                typed.append(line)
                if compiler("\n".join(typed), f"{page}:{block.line}", "single") is not None:
                    typed.clear()
            assert not typed


SERVED = {8125: "udp", 8126: "console", 8127: "http", 8128: "http"}
"""Ports of the documentation, and which address of the forwarder stands for each."""
ASKING = re.compile(r"\(?printf |curl ")


def commands() -> Iterator[tuple[str, str]]:
    """Yield the commands of console blocks that ask a forwarder or send to it, each with the place where it stands."""
    for path in PAGES:
        for block in blocks(path.read_text(encoding="utf-8")):
            for number, line in enumerate(block.text.splitlines() if block.info == "console" else (), block.line):
                if line.startswith("$ ") and ASKING.match(line[2:]):
                    yield f"{path.relative_to(ROOT)}:{number}", line[2:]


def test_commands_need_no_more_than_debian_has():
    """Netcat is not installed there."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert not re.findall(r"^\$ (?:.*\| *)?(?:nc|ncat|netcat|socat) .*", text, re.MULTILINE)


def test_commands_that_ask_a_forwarder_run(tmp_path: Path, need: Callable[..., None]):
    """In bash, with curl and jq 1.6: each ends well, and what reads prints something."""
    need("bash", "curl", "jq")
    sockets: dict[str, str | list[str] | None] = {
        "listen": ["udp://127.0.0.1:0"],
        "http": "127.0.0.1:0",
        "console": "127.0.0.1:0",
    }
    daemon = Daemon(settle(of_flags({**sockets, "interval": "3600", "to": [f"file:{tmp_path}/points"]})))
    daemon.start()
    try:
        ports = {address.partition("://")[0]: address.rpartition(":")[2] for address in daemon.addresses}
        ran = 0
        for where, command in commands():
            for port, scheme in SERVED.items():
                command = re.sub(rf"127\.0\.0\.1([:/ ]){port}\b", rf"127.0.0.1\g<1>{ports[scheme]}", command)
            command = re.sub(r"\bvenv/bin/python\b", sys.executable, command)
            shell = ["bash", "-e", "-o", "pipefail", "-c", command]
            done = subprocess.run(shell, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, ""), f"{where}: {command}"
            assert done.stdout or "/dev/udp/" in command, f"{where}: {command}"
            ran += 1
    finally:
        daemon.stop()
    assert ran >= 8
