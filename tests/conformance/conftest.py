"""statsd, once a session, and the tally of what was compared with it, which the summary shows."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from .daemons import STATSD, Statsd
from .judge import Tally

COMPARED = "compared with statsd"


@pytest.fixture(scope="session")
def statsd(need: Callable[..., None]) -> Iterator[Statsd]:
    """The real statsd: call it with a case."""
    need("node", str(STATSD.relative_to(STATSD.parents[3])))
    daemon = Statsd()
    yield daemon
    daemon.close()


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """Counts of the test that asks for it; the summary adds them up, and the XML report has them."""
    tally = Tally()
    yield tally
    record_property(COMPARED, {**vars(tally), "deviations": dict(tally.deviations)})  # plain types cross processes


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases were compared, and how many showed which deviation, in all processes that ran tests."""
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    for report in itertools.chain(*terminalreporter.stats.values()):
        for name, counts in getattr(report, "user_properties", ()):
            if name == COMPARED and report.when == "teardown":
                tallies[report.location[2].partition("[")[0]].add(counts)
    if tallies:
        terminalreporter.section(COMPARED)
        for name, tally in tallies.items():
            terminalreporter.write_line(f"{name}: {tally}")
