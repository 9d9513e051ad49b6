"""The console beside statsd's own: what both were asked, and that both say what is written in ``console.txt``.

In that file a line that begins with ``> `` is what is said, on a connection of its own, and what follows is the answer.
``N`` stands for a number that differs with time. Where statsd prints a JavaScript object and we print JSON, there stand
the values, without the daemons' own counters, and of a timer how many samples it has.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import FOREVER, Forwarder, eventually
from tests.sockets import answer, send

from .real_statsd import RealStatsd, of_javascript

SENT = ["a:1|c", "a.b:2|c", "a.c:3|c\na.c:4|c|@0.5", "ab:5|c", "t:5|ms:7|ms", "t.x:1|ms", "g:3|g", "g.x:-4|g", "broken"]
LINES = 10
TRANSCRIPT = Path(__file__).parent / "console.txt"


def transcript() -> list[tuple[str, str]]:
    """Return what is said, and what must be answered."""
    parts = re.split(r"^> ?(.*)\n", TRANSCRIPT.read_text(), flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def masked(answer: str, parse: Callable[[str], dict[str, Any]]) -> str:
    """Return an answer as it stands in the transcript."""
    text = re.sub(r"^((?:uptime|\w+\.(?:last|flush)_\w+): )\d+$", r"\1N", answer, flags=re.MULTILINE)
    if not text.startswith("{"):
        return text
    values, end, rest = text.partition("END\n\n")
    shown = {key: _samples(value) for key, value in parse(values).items() if not key.startswith("statsd.")}
    return f"{json.dumps(shown)}\n{end}{rest}"


def _samples(value: Any) -> Any:
    if isinstance(value, list):
        return f"{len(value)} samples"
    return f"{value['count']} samples" if isinstance(value, dict) else value


def ask(port: int, command: str) -> str:
    return answer(f"tcp://127.0.0.1:{port}", f"{command}\n")


def spoken(console: int, parse: Callable[[str], dict[str, Any]]) -> list[tuple[str, str]]:
    return [(command, masked(ask(console, command), parse)) for command, _ in transcript()]


@pytest.fixture
def statsd(tmp_path: Path, need: Callable[..., None]) -> Iterator[RealStatsd]:
    server = RealStatsd(tmp_path, need)
    yield server
    server.close()


def test_statsds_console_says_what_is_written(statsd: RealStatsd):
    """The transcript is the real one's."""
    for datagram in SENT:
        send(f"udp://127.0.0.1:{statsd.udp}", datagram)
    eventually(lambda: statsd.values("counters")["statsd.metrics_received"] == LINES)
    assert spoken(statsd.console, of_javascript) == transcript()


def test_our_console_says_the_same(forwarder: Callable[..., Forwarder]):
    """To the byte, but for what differs with time and for JSON in the place of JavaScript."""
    process = forwarder("--listen", "udp://127.0.0.1:0", "--console", "127.0.0.1:0", "--interval", str(FOREVER))
    ready = process.ready()
    for datagram in SENT:
        send(ready["udp"], datagram)
    port = int(ready["console"].rpartition(":")[2])
    eventually(lambda: json.loads(ask(port, "counters").partition("END")[0])["statsd.metrics_received"] == LINES)
    assert spoken(port, json.loads) == transcript()


def test_statsds_own_checks_understand_our_console(forwarder: Callable[..., Forwarder], need: Callable[..., None]):
    """What statsd's health check sends, and what it looks for; see ``utils/check_statsd_health`` in its package."""
    port = int(forwarder("--console", "127.0.0.1:0", "--listen", "udp://127.0.0.1:0").ready()["console"].split(":")[2])
    assert ask(port, "health\n") == "health: up\n"
    assert re.search(r"^uptime:\s+\d+", ask(port, "stats\r"))
