"""What the tests of listeners share."""

from collections.abc import Callable, Iterator

import pytest

from forwarder.listeners.base import Listener
from tests.forwarder.heard import Heard


@pytest.fixture
def heard() -> Heard:
    """A sink that remembers everything."""
    return Heard()


@pytest.fixture
def started() -> Iterator[Callable[[Listener], Listener]]:
    """Call with a listener to bind and start it. It is stopped at the end of the test."""
    listeners: list[Listener] = []

    def start(listener: Listener) -> Listener:
        listeners.append(listener)
        listener.bind()
        listener.start()
        return listener

    yield start
    for listener in listeners:
        listener.stop(1.0)
