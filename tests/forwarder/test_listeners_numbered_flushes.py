"""Many who cannot wait, and one call that helps them all."""

from forwarder.listeners.numbered import PATIENCE, REST, FlushRequests


def test_the_first_to_ask_is_helped_at_once():
    """There is no call before it is due, and one when it is."""
    called = []
    syncs = FlushRequests(lambda: called.append(1))
    assert syncs.due is None
    syncs.keep_time(5)
    assert not called
    syncs.ask(5)
    assert syncs.due == 5
    syncs.keep_time(5)
    assert (called, syncs.due) == ([1], None)


def test_many_ask_and_one_call_is_made():
    """Those who asked before it was made are helped by it."""
    called = []
    syncs = FlushRequests(lambda: called.append(1))
    for _ in range(5):
        syncs.ask(5)
    syncs.keep_time(5)
    syncs.done(5.1, again=True)
    assert syncs.due is None
    assert called == [1]


def test_who_asks_while_a_call_is_under_way_waits_for_the_next():
    """It may have come too late for the first. The next comes after a rest."""
    called = []
    syncs = FlushRequests(lambda: called.append(1))
    syncs.ask(5)
    syncs.keep_time(5)
    syncs.ask(5.05)
    syncs.done(5.1, again=True)
    assert syncs.due == 5.1 + REST
    syncs.keep_time(5.3)
    assert called == [1]
    syncs.keep_time(5.1 + REST)
    assert called == [1, 1]


def test_a_call_that_is_not_needed_any_more_is_not_made():
    """Where the first helped everybody, or the interval has ended meanwhile."""
    syncs = FlushRequests(lambda: None)
    syncs.ask(5)
    syncs.keep_time(5)
    syncs.ask(5.05)
    syncs.done(5.1, again=False)
    assert syncs.due is None
    syncs.ask(5.2)
    syncs.done(5.3, again=False)
    assert syncs.due is None


def test_a_rest_is_as_long_as_the_work_was():
    """So senders can take at most half of the time that there is."""
    syncs = FlushRequests(lambda: None)
    syncs.ask(5)
    syncs.keep_time(5)
    syncs.done(8, again=True)
    syncs.ask(9)
    assert syncs.due == 11


def test_a_call_that_helped_nobody_is_made_again():
    """After a while, if somebody asks."""
    called = []
    syncs = FlushRequests(lambda: called.append(1))
    syncs.ask(5)
    syncs.keep_time(5)
    syncs.ask(6)
    assert syncs.due == 5 + PATIENCE
    syncs.keep_time(5 + PATIENCE)
    assert called == [1, 1]
