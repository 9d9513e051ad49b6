"""Real peers: a carbon-cache of one's own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import whisper

from tests.peers import eventually

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
PICKLE_RECEIVER_PORT = 0
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = 0
ENABLE_TAGS = False
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = inf
CARBON_METRIC_INTERVAL = 0
LOG_UPDATES = False
"""
SCHEMAS = "[everything]\npattern = .*\nretentions = {interval}s:1d\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Carbon:
    """A carbon-cache in a directory of its own, which keeps one point an interval for a day."""

    def __init__(self, root: Path, interval: int) -> None:
        self.root = root
        self.interval = interval
        self.port = free_port()
        (root / "storage" / "log").mkdir(parents=True)
        (root / "carbon.conf").write_text(CARBON_CONF.format(root=root, port=self.port))
        (root / "storage-schemas.conf").write_text(SCHEMAS.format(interval=interval))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"graphite://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it takes lines."""
        command = [sys.executable, str(Path(sys.executable).parent / "carbon-cache.py")]
        command += ["--nodaemon", f"--config={self.root}/carbon.conf", "start"]
        environment = {**os.environ, "GRAPHITE_ROOT": str(self.root)}
        log = (self.root / "carbon.log").open("ab")
        self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        log.close()
        eventually(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; what it only had in memory is gone."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def file(self, path: str) -> Path:
        """The whisper file of a path, plain or tagged, where carbon itself puts it."""
        if ";" in path:
            from carbon.util import TaggedSeries

            return self.root / "storage" / "whisper" / (TaggedSeries.encode(path, os.sep, hash_only=True) + ".wsp")
        return self.root / "storage" / "whisper" / (path.replace(".", "/") + ".wsp")

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


@pytest.fixture
def carbon(tmp_path: Path, need: Callable[..., None]) -> Iterator[Carbon]:
    """A running carbon-cache with 10-second slots."""
    need("carbon-cache.py")
    cache = Carbon(tmp_path / "carbon", interval=10)
    cache.start()
    yield cache
    cache.stop(signal.SIGKILL)
