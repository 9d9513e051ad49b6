"""How many descriptors connections may take."""

import resource

import pytest

from forwarder.descriptors import EACH, RESERVE, connections_each


@pytest.fixture
def limits(monkeypatch):
    """Set the limits that the system is to have; returns those that were set."""

    def limits(soft, hard):
        now = [soft, hard]
        monkeypatch.setattr(resource, "getrlimit", lambda which: tuple(now))
        monkeypatch.setattr(resource, "setrlimit", lambda which, new: now.__setitem__(slice(None), new))
        return now

    return limits


UNLIMITED = resource.RLIM_INFINITY
ONE = RESERVE + EACH + 1024


@pytest.mark.parametrize(
    ("soft", "hard", "listeners", "each", "raised"),
    [
        (1024, 4096, 1, 1024, ONE),  # raised as far as it must be
        (4096, 4096, 1, 1024, 4096),  # enough
        (4096, UNLIMITED, 9, 1024, RESERVE + EACH + 9 * 1024),
        (UNLIMITED, UNLIMITED, 9, 1024, UNLIMITED),
        (1024, 1024, 1, 1024 - RESERVE - EACH, 1024),  # the rest is for others
        (1024, 1024, 2, (1024 - RESERVE - EACH) // 2, 1024),
        (64, 64, 1, 32, 64),
        (8, 8, 100, 1, 8),
        (1024, 1024, 0, 1024 - RESERVE - EACH, 1024),
    ],
)
def test_the_limit_is_raised_and_shared_out(limits, soft, hard, listeners, each, raised):
    now = limits(soft, hard)
    assert connections_each(listeners, 1, 1024) == each
    assert now == [raised, hard]
