"""A proxy whose server is away confirms nothing, with the settings that the documentation gives for it."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from metricslib.delivery.batch import Deadline, Undelivered
from metricslib.delivery.transport import Endpoint, Stream
from tests.peers import GraphitePeer, eventually, free_port

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "destinations.md"


@pytest.fixture
def ports() -> tuple[int, int]:
    """Of the proxy, and of the server behind it."""
    return free_port(), free_port()


@pytest.fixture
def haproxy(need, ports: tuple[int, int], tmp_path: Path) -> Iterator[Stream]:
    """A way through a haproxy that is configured as in the documentation."""
    need("haproxy")
    shown = re.search(r"```text\n(defaults\n.*?\nfrontend graphite\n.*?)```", DOCS.read_text(), re.DOTALL)
    assert shown
    settings = shown[1].replace("127.0.0.1:2003", f"127.0.0.1:{ports[0]}").replace("12003", f"{ports[1]}")
    (tmp_path / "haproxy.cfg").write_text(settings)
    command = [shutil.which("haproxy") or "", "-f", str(tmp_path / "haproxy.cfg")]
    subprocess.run([*command, "-c", "-dW"], check=True, capture_output=True)  # -dW: a warning is an error
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        yield Stream(Endpoint("127.0.0.1", ports[0]))
        process.terminate()


def delivers(stream: Stream) -> bool:
    try:
        stream.send(b"a.b 1 1700000000\n", Deadline(20), again=True)
    except Undelivered:
        return False
    return True


def test_haproxy_confirms_nothing_while_graphite_is_away(haproxy: Stream, ports: tuple[int, int]):
    """Before it is there, and after it has gone; between, what haproxy confirms has arrived."""
    eventually(lambda: not any(delivers(haproxy) for _ in range(20)), or_else="haproxy noticed that its server is away")
    graphite = GraphitePeer(ports[1])
    eventually(lambda: delivers(haproxy), or_else="haproxy noticed that its server is there")
    assert graphite.at("a.b") == [1]
    graphite.close()
    eventually(
        lambda: not any(delivers(haproxy) for _ in range(20)), or_else="haproxy noticed that its server has gone"
    )
