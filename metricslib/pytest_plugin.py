"""A plug-in for pytest: the fixtures ``metrics`` and ``manual_clock``, and all that was measured where a test fails.

pytest finds it where metricslib is installed. Nothing is imported from the library until a test uses a fixture.
"""

import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import Captured, ManualClock

__all__ = ["manual_clock", "metrics", "pytest_assertrepr_compare", "pytest_runtest_makereport"]


@pytest.fixture
def metrics() -> "Iterator[Captured]":
    """What the test measures in the default registry: ``assert metrics.counter("hits", route="/u") == 3``.

    What other tests measure is not in it. If the program calls ``metricslib.start()`` in the test, nothing is sent.
    """
    from .testing import capture

    with capture() as captured:
        yield captured


@pytest.fixture
def manual_clock() -> "ManualClock":
    """A clock that stands still until the test moves it, for a registry: ``Registry(clock=manual_clock)``."""
    from .testing import ManualClock

    return ManualClock()


@pytest.hookimpl(trylast=True)
def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Show all that was measured where a comparison with a value of it fails."""
    testing = sys.modules.get(f"{__package__}.testing")
    measured = [each for each in (left, right) if testing and isinstance(each, testing.Number)]
    if not measured:
        return None
    captured: Any = measured[0]
    return [f"{left!r} {op} {right!r}", "measured:", *(f"  {line}" for line in str(captured.captured).splitlines())]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add all that was measured to the report of a failed test that uses the fixture."""
    report = yield
    captured = getattr(item, "funcargs", {}).get("metrics")
    testing = sys.modules.get(f"{__package__}.testing")
    if report.failed and testing and isinstance(captured, testing.Captured):
        report.sections.append(("Measured", str(captured)))
    return report
