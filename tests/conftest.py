"""What all tests share."""

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from metricslib.registry import Registry
from metricslib.testing import ManualClock
from metricslib.window import Flush
from tests.peers import Forwarder, Program

ROOT = Path(__file__).parent.parent

# No deadline: a loaded machine is no defect of the code. In CI the examples are the same in every run.
hypothesis.settings.register_profile("metricslib", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis.settings.load_profile("metricslib")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow ones, so that at the end no process waits for one of them alone."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _is_here(tool: str) -> bool:
    if "/" in tool:
        return (ROOT / tool).exists()
    return any(shutil.which(tool, path=path) for path in (str(Path(sys.executable).parent), None))


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """Call with tools that the test cannot do without: it is skipped without them, but fails where CI=true.

    A tool is a command, on the path or beside the running Python (`"node"`, `"carbon-cache.py"`), or, with a slash in
    it, a path in the repository (`"tests/end_to_end/node_modules/hot-shots"`).
    """

    def need(*tools: str) -> None:
        missing = [tool for tool in tools if not _is_here(tool)]
        if missing:
            stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            stop(f"not found: {', '.join(missing)}")

    return need


@pytest.fixture(scope="session", autouse=True)
def groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test is in a group with what else runs on this machine."""
    before = os.environ.get("METRICSLIB_GROUP_DIR")
    os.environ["METRICSLIB_GROUP_DIR"] = str(tmp_path_factory.mktemp("groups"))
    yield
    if before is None:
        del os.environ["METRICSLIB_GROUP_DIR"]
    else:
        os.environ["METRICSLIB_GROUP_DIR"] = before


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def registry(clock: ManualClock) -> Registry:
    """A registry of the test's own, on `clock`."""
    return Registry(clock=clock)


@pytest.fixture
def tick(registry: Registry, clock: ManualClock) -> Callable[[], Flush]:
    """Call to let ten seconds pass and end the interval."""

    def tick() -> Flush:
        clock.advance(10)
        return registry.tick(int(clock.time()), 10.0)

    return tick


@pytest.fixture
def forwarder() -> Iterator[Callable[..., Forwarder]]:
    """Call with what `Forwarder` takes to start one that is gone at the end of the test."""
    started: list[Forwarder] = []

    def start(*flags: str, **how: Any) -> Forwarder:
        started.append(Forwarder(*flags, **how))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
        process.end()


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """Call with what `Program` takes to start one that is gone at the end of the test."""
    started: list[Program] = []

    def start(name: str, url: str, *options: str, **more: int) -> Program:
        started.append(Program(name, url, *options, **more))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port of TCP and UDP that stays taken, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
