"""statsd, once a session, and the tally of what was compared with it, which the summary shows."""

from collections.abc import Callable, Iterator

import pytest

from .daemons import STATSD, Statsd
from .judge import Tally

TALLIES: dict[str, Tally] = {}


@pytest.fixture(scope="session")
def statsd(need: Callable[..., None]) -> Iterator[Statsd]:
    """The real statsd: call it with a case."""
    need("node", str(STATSD.relative_to(STATSD.parents[3])))
    daemon = Statsd()
    yield daemon
    daemon.close()


@pytest.fixture
def tally(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """Counts for the test that asks for it, all its parameters together; summary and XML report have them."""
    tally = TALLIES.setdefault(request.node.originalname, Tally())
    yield tally
    record_property("compared with statsd", str(tally))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases were compared, and how many showed which deviation."""
    if TALLIES:
        terminalreporter.section("compared with statsd")
        for name, tally in TALLIES.items():
            terminalreporter.write_line(f"{name}: {tally}")
