"""How-to "Replace statsd in ten minutes", followed literally: the page's commands, in bash, on the default ports.

bash runs in a network of its own, so that the ports are free whatever else runs here, with a carbon-cache beside it.
What the page shows as a command's output is what the command prints. Only what installs something is left out: it is
there already.
"""

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Set
from pathlib import Path

import pytest
import whisper

from tests.peers import ROOT, eventually

from .conftest import CARBON_CONF, SCHEMAS

PAGE = ROOT / "docs" / "how-to" / "replace-statsd.md"
STATSD = ROOT / "tests" / "end_to_end" / "node_modules" / "statsd"
INSTALLS = re.compile(r"npm install|python3 -m venv|\S*pip install")
INTERVAL = 10


class Shell:
    """A bash in a network of its own, with nothing in it but loopback."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "bash"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "GRAPHITE_ROOT": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def run(self, command: str) -> str:
        """Return what it prints, of both streams."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\necho; echo the end\n")
        self._process.stdin.flush()
        printed = ""
        while not printed.endswith("\nthe end\n"):
            printed += self._lines.get(timeout=60)
        return printed.removesuffix("\nthe end\n")

    def close(self) -> None:
        """End it, and with it everything that it started."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def shell(tmp_path: Path, need: Callable[..., None]) -> Iterator[Shell]:
    """In a folder that has all that the page installs, with carbon-cache on port 2003."""
    need("unshare", "ip", "curl", "node", "carbon-cache.py", str(STATSD.relative_to(ROOT)))
    (tmp_path / "node_modules").symlink_to(STATSD.parent)
    commands = tmp_path / "venv" / "bin"
    commands.mkdir(parents=True)
    for name, does in (("python", ""), ("forwarder", "-m forwarder")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {does} "$@"\n')
        (commands / name).chmod(0o755)
    (tmp_path / "storage" / "log").mkdir(parents=True)
    (tmp_path / "carbon.conf").write_text(CARBON_CONF.format(root=tmp_path, port=2003, pickle_port=2004))
    (tmp_path / "storage-schemas.conf").write_text(SCHEMAS.format(interval=INTERVAL))
    if subprocess.run(["unshare", "--map-root-user", "--net", "--pid", "--fork", "true"]).returncode:
        pytest.skip("no network of one's own is allowed here")
    shell = Shell(tmp_path)
    try:
        shell.run("ip link set lo up")
        start_carbon(shell, tmp_path)
        yield shell
    finally:
        shell.close()


def start_carbon(shell: Shell, folder: Path) -> None:
    carbon = f"{sys.executable} {Path(sys.executable).parent}/carbon-cache.py --nodaemon --config={folder}/carbon.conf"
    shell.run(f"{carbon} start > carbon.log 2>&1 & disown")
    eventually(lambda: shell.run("(: > /dev/tcp/127.0.0.1/2003) 2> /dev/null && echo yes") == "yes\n")


class Step:
    """One section of the page."""

    def __init__(self, text: str) -> None:
        fences = re.findall(r"^```(js|python no-run|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        self.files = [block for kind, block in fences if kind != "console"]
        console = "".join(block for kind, block in fences if kind == "console")
        self.commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)

    def follow(self, shell: Shell, folder: Path) -> None:
        """Write the files that it shows, and run its commands."""
        for text in self.files:
            name = re.match(r"(?://|#) (\S+)\n", text)
            assert name, text
            (folder / name[1]).write_text(text)
        for command, shown in self.commands:
            if not INSTALLS.match(command):
                printed = shell.run(command)
                pattern = ".*".join(re.escape(part) for part in shown.split("…"))
                assert re.fullmatch(pattern, printed), f"{command}\n{printed}"


def steps() -> dict[str, Step]:
    sections = re.split(r"^## (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {title: Step(text) for title, text in zip(sections[::2], sections[1::2], strict=True)}


def paths_written(folder: Path, since: float) -> dict[str, float]:
    """Every path of which carbon has a point of after ``since``, and the first such."""
    found = {}
    storage = folder / "storage" / "whisper"
    for file in storage.rglob("*.wsp"):
        try:
            fetched = whisper.fetch(str(file), int(since), now=int(max(since, time.time())) + INTERVAL)
        except whisper.CorruptWhisperFile:  # carbon is making it right now
            continue
        values = [value for value in (fetched[1] if fetched else []) if value is not None]
        if values:
            found[".".join(file.relative_to(storage).with_suffix("").parts)] = values[0]
    return found


HEIGHTS = ["stats_counts.shop.orders", "stats.timers.shop.checkout.upper_99", "stats.sets.shop.customers.count"]
LAST = "stats.statsd.graphiteStats.flush_length"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_page_is_followed(shell: Shell, tmp_path: Path):
    """Every command does what the page says; the graphs go on with the same paths, as high as before, and back."""
    page = iter(steps().items())

    def follow(title: str) -> float:
        name, step = next(page)
        assert name.endswith(title)
        step.follow(shell, tmp_path)
        return time.time()

    def graphs(begin: float, paths: Set[str]) -> dict[str, float]:
        """Wait until all of these paths have points of after ``begin``; return every path that has."""
        eventually(lambda: paths <= paths_written(tmp_path, begin).keys(), seconds=90, or_else=f"all paths at {begin}")
        return paths_written(tmp_path, begin)

    started = follow("Starting point")
    graphs(started + 2 * INTERVAL, {*HEIGHTS, "stats.gauges.shop.queue", LAST})  # its second flush has all of its own
    follow("Install the forwarder")
    follow("Convert the configuration")
    before = paths_written(tmp_path, started + INTERVAL)
    changed = follow("Change over")
    log = tmp_path / "forwarder.log"  # which bash makes in its child, so perhaps after it took the next command
    eventually(lambda: log.exists() and "ready udp:" in log.read_text())
    follow("Check")
    after = graphs(changed + INTERVAL, before.keys())
    assert after.keys() == before.keys()
    for path in HEIGHTS:
        assert after[path] == pytest.approx(before[path], rel=0.5)
    back = follow("Go back if necessary")
    again = graphs(back + INTERVAL, before.keys() - {"stats.gauges.statsd.timestamp_lag"})
    assert again.keys() <= before.keys()
