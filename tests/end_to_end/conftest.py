"""Real peers: a carbon-cache of one's own, and the example shop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import whisper

from metricslib.testing import ManualClock
from tests.peers import ROOT, eventually, free_port
from tests.sockets import listens

CARBON_CONF = """
[cache]
STORAGE_DIR = {root}/storage
LOCAL_DATA_DIR = {root}/storage/whisper
CONF_DIR = {root}
LOG_DIR = {root}/storage/log
PID_DIR = {root}/storage
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {port}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {pickle_port}
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = 0
ENABLE_TAGS = False
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = inf
CARBON_METRIC_INTERVAL = 0
LOG_UPDATES = False
"""
SCHEMAS = "[everything]\npattern = .*\nretentions = {interval}s:1000\n"


def recent_clock() -> ManualClock:
    """A second into an interval of ten a quarter of an hour ago, which the slots of real caches still hold."""
    return ManualClock(time=(time.time() // 10 - 100) * 10 + 1)


class Carbon:
    """A carbon-cache in a directory of its own, which keeps the points of a thousand intervals."""

    def __init__(self, root: Path, interval: int) -> None:
        self.root = root
        self.interval = interval
        self.port = free_port()
        self.pickle_port = free_port()
        (root / "storage" / "log").mkdir(parents=True)
        (root / "carbon.conf").write_text(CARBON_CONF.format(root=root, port=self.port, pickle_port=self.pickle_port))
        (root / "storage-schemas.conf").write_text(SCHEMAS.format(interval=interval))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"graphite://127.0.0.1:{self.port}"

    @property
    def pickle_url(self) -> str:
        return f"graphite+pickle://127.0.0.1:{self.pickle_port}"

    def start(self) -> None:
        """Start, and wait until it takes lines and frames."""
        command = [sys.executable, str(Path(sys.executable).parent / "carbon-cache.py")]
        command += ["--nodaemon", f"--config={self.root}/carbon.conf", "start"]
        environment = {**os.environ, "GRAPHITE_ROOT": str(self.root)}
        log = (self.root / "carbon.log").open("ab")
        self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        log.close()
        eventually(self._listens)

    def _listens(self) -> bool:
        return all(listens(port) for port in (self.port, self.pickle_port))

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; what it only had in memory is gone."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def file(self, path: str) -> Path:
        """The whisper file of a path, plain or tagged, where carbon itself puts it."""
        if ";" in path:
            from carbon.util import TaggedSeries

            return self.root / "storage" / "whisper" / (TaggedSeries.encode(path, os.sep, hash_only=True) + ".wsp")
        return self.root / "storage" / "whisper" / (path.replace(".", "/") + ".wsp")

    def adds_up(self, totals: Mapping[str, float], first: int, last: int) -> None:
        """Wait until what is in all slots from ``first`` to ``last`` adds up to each path's total."""
        stamps = list(range(first // self.interval * self.interval, last + self.interval, self.interval))
        off = dict.fromkeys(totals, 0.0)

        def all_match() -> bool:
            for path in list(off):
                off[path] = sum(value or 0 for value in self.read(path, stamps))
                if off[path] == pytest.approx(totals[path], rel=1e-12):
                    del off[path]
            return not off

        try:
            eventually(all_match)
        except AssertionError:
            assert off == {path: totals[path] for path in off}

    def read(self, path: str, stamps: list[int]) -> list[float | None]:
        """What is in the slots of ``stamps``, which are consecutive; None where nothing was written (yet)."""
        if not self.file(path).exists():
            return [None] * len(stamps)
        first, last = stamps[0], stamps[-1]
        try:
            found = whisper.fetch(str(self.file(path)), first - self.interval, last, now=last)
        except whisper.CorruptWhisperFile:  # carbon is making it right now
            return [None] * len(stamps)
        assert found is not None
        (start, end, step), values = found
        slots = dict(zip(range(start, end, step), values, strict=True))
        return [slots.get(stamp) for stamp in stamps]


class Shop:
    """``make run``, as a process group of its own, and what it printed."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.data = data
        command = [sys.executable, "-W", "error", "-m", "examples.shop", "--free-ports", "--data", str(data), *flags]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        assert self.process.stdout is not None
        self.began = int(time.time())
        self.addresses: dict[str, str] = {}
        """What it printed on its first lines, such as ``the shop``: the rest of the line."""
        for line in self.process.stdout:
            if line.startswith("Ctrl-C"):
                break
            name, _, address = line.strip().partition("  ")
            self.addresses[name] = address.strip()
        if "its metrics" not in self.addresses:
            pytest.fail(self.end()[2])
        self.metrics = self.addresses["its metrics"]
        self.forwarder = self.addresses["the forwarder"]

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Send a signal, as a terminal does, to the whole group; return exit code, rest of the output, and errors."""
        if number is not None:
            os.killpg(self.process.pid, number)
        try:
            output, errors = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, output, errors

    def kill(self) -> None:
        """End it without looking at how it ends, if it has not ended."""
        if self.process.poll() is None:
            self.end(signal.SIGTERM)
        else:
            self.process.communicate()


@pytest.fixture
def start_carbon(tmp_path: Path, need: Callable[..., None]) -> Iterator[Callable[[int], Carbon]]:
    """Call with an interval for a running carbon-cache with slots of so many seconds."""
    started: list[Carbon] = []

    def start(interval: int) -> Carbon:
        need("carbon-cache.py")
        started.append(Carbon(tmp_path / f"carbon{len(started)}", interval))
        started[-1].start()
        return started[-1]

    yield start
    for cache in started:
        cache.stop(signal.SIGKILL)


@pytest.fixture
def carbon(start_carbon: Callable[[int], Carbon]) -> Carbon:
    """A running carbon-cache with 10-second slots."""
    return start_carbon(10)
