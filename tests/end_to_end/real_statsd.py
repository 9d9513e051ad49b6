"""statsd itself, the JavaScript daemon, as a peer: with listeners on UDP and TCP, and its management console."""

import json
import re
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.peers import ROOT, eventually, free_port
from tests.sockets import answer, listens

__all__ = ["RealStatsd", "of_javascript"]

PACKAGE = "tests/end_to_end/node_modules/statsd"
_FOREVER = 1_000_000_000  # milliseconds


def of_javascript(text: str) -> dict[str, Any]:
    """Return the object in ``text``, which is as JavaScript shows it, which of a long list is the beginning."""
    text = re.sub(r"\.\.\. (\d+) more items?", lambda match: ",".join(["null"] * int(match[1])), text)
    script = "process.stdout.write(JSON.stringify(eval('(' + require('fs').readFileSync(0, 'utf8') + ')')))"
    done = subprocess.run(["node", "-e", script], input=text, capture_output=True, text=True, check=True, timeout=60)
    values: dict[str, Any] = json.loads(done.stdout)
    return values


class RealStatsd:
    """A running statsd that flushes never, so that its console has all that it was sent. ``need`` is the fixture."""

    def __init__(
        self, folder: Path, need: Callable[..., None], *, port: int = 0, options: Mapping[str, Any] | None = None
    ) -> None:
        need("node", PACKAGE)
        self.tcp = port or free_port(socket.SOCK_STREAM)
        self.udp = port or free_port(socket.SOCK_DGRAM)
        self.console = free_port(socket.SOCK_STREAM)
        servers = [
            {"server": "./servers/udp", "address": "127.0.0.1", "port": self.udp},
            {"server": "./servers/tcp", "address": "127.0.0.1", "port": self.tcp},
        ]
        config = {"servers": servers, "mgmt_address": "127.0.0.1", "mgmt_port": self.console, **(options or {})}
        file = folder / f"statsd-{self.console}.js"
        file.write_text(json.dumps({"flushInterval": _FOREVER, "automaticConfigReload": False, **config}))
        command = ["node", str(ROOT / PACKAGE / "stats.js"), str(file)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: listens(self.console) and listens(self.tcp), or_else="statsd listening")

    def ask(self, command: str) -> str:
        return answer(f"tcp://127.0.0.1:{self.console}", f"{command}\n")

    def values(self, command: str) -> dict[str, Any]:
        """Return what ``counters``, ``timers`` or ``gauges`` shows."""
        return of_javascript(self.ask(command).removesuffix("END\n\n"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
