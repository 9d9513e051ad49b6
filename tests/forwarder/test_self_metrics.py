"""The forwarder's own metrics: what they are called, and that the account balances in the very window it speaks of."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from forwarder.aggregator import Aggregator
from forwarder.graphite import Relay
from forwarder.self_metrics import Input, SelfMetrics
from metricslib.registry import Registry
from metricslib.testing import ManualClock

LINES = (b"a:1|c", b"a:1|c:x|c", b"t:3|ms:4|ms|@0.5", b"broken", b"g:+1|g", b"s:x|s", b"_sc|up|0", b"a:1|zz")


def wired(*feeds, prefix="statsd", events=dict):
    clock = ManualClock()
    registry = Registry(clock=clock)
    aggregators = [Aggregator(registry, clock=clock), Aggregator(registry, clock=clock)]
    for aggregator in aggregators:
        registry.add_source(aggregator)
    opened = [Input("udp://127.0.0.1:8125", aggregators[0], events), Input("unix:///run/statsd.sock", aggregators[1])]
    own = SelfMetrics(prefix, [*opened, *feeds], lambda: 0.25)
    registry.add_source(own)
    return registry, aggregators, own


def own_of(window):
    return {key: value for key, value in window.counters.items() if key.startswith("statsd.")}


def test_what_is_sent_has_statsds_names():
    """Everything there is stands in the first window already, and again, as 0, in one in which nothing happened."""
    registry, (udp, _), _ = wired(events=lambda: {"kernel_dropped": 7})
    udp.feed([b"a:1|c\nb:1|c:2|c\nbad", b"_e{1,1}:a|b"])
    window = registry.tick(10, 10).cumulative
    assert own_of(window) == {
        "statsd.bad_lines_seen": 1,
        "statsd.packets_received": 2,
        "statsd.metrics_received": 4,
        "statsd.pieces_received": 5,
        "statsd.pieces_aggregated": 3,
        "statsd.pieces_dropped.event": 1,
        "statsd.kernel_drops.udp_127_0_0_1_8125": 7,
    }
    assert window.gauges == {}  # as in statsd, the lag is there from the second window on
    window = registry.tick(20, 10).cumulative
    assert own_of(window) == dict.fromkeys(own_of(window), 0)
    assert window.gauges == {"statsd.timestamp_lag": 0.25}


def test_only_what_statsd_has_of_itself():
    """The account can be left out of what is sent; the page has it all the same."""
    registry = Registry(clock=ManualClock())
    aggregator = Aggregator(registry)
    own = SelfMetrics(
        "statsd", [Input("udp://", aggregator, lambda: {"kernel_dropped": 7})], lambda: 0.0, account=False
    )
    registry.add_source(own)
    aggregator.feed([b"a:1|c"])
    registry.tick(10, 10)
    window = registry.tick(20, 10).cumulative
    assert list(window.counters) == ["statsd.bad_lines_seen", "statsd.packets_received", "statsd.metrics_received"]
    assert list(window.gauges) == ["statsd.timestamp_lag"]
    assert own.sections()["Pieces"]["Received"] == 1


def test_points_have_an_account_of_their_own():
    """Graphite's points pass by the windows, so they are not among the pieces."""
    passed = []
    relay = Relay(passed.extend)
    registry, _, own = wired(Input("graphite://127.0.0.1:2003", relay))
    relay.feed([b"a.b 1 1700000000\nc nan 1700000000\nd\n"])
    relay.flush()
    counters = own_of(registry.tick(10, 10).cumulative)
    assert len(passed) == 1
    assert counters["statsd.points_received"] == 3
    assert counters["statsd.points_relayed"] == counters["statsd.points_bad"] == 1
    assert counters["statsd.points_dropped.not_finite"] == 1
    assert counters["statsd.pieces_received"] == counters["statsd.packets_received"] == 0
    assert own.sections()["Graphite points"] == {"Received": 3, "Relayed": 1, "Bad": 1, "Dropped": {"not_finite": 1}}


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(LINES), st.booleans(), st.booleans())))
def test_the_account_balances_in_every_window(events):
    """received = aggregated + bad + dropped, in each window by itself and however ticks and feeds alternate."""
    registry, aggregators, _ = wired()
    stamp, total = 10, 0
    for one, line, tick, snapshot in events:
        aggregators[one].feed([line])
        if snapshot:
            registry.snapshot()
        if tick:
            total += balanced(registry.tick(stamp, 10).cumulative)
            stamp += 10
    total += balanced(registry.tick(stamp, 10).cumulative)
    assert total == sum(aggregator.counts().received for aggregator in aggregators)


def balanced(window):
    counters = own_of(window)
    dropped = sum(count for key, count in counters.items() if key.startswith("statsd.pieces_dropped."))
    received = counters["statsd.pieces_received"]
    assert received == counters["statsd.pieces_aggregated"] + counters["statsd.bad_lines_seen"] + dropped
    return received


def test_the_account_is_of_what_is_in_the_window():
    """What is fed during a tick, after its aggregator was collected, is in the next window, and so is its account."""
    registry, (udp, _), own = wired()

    class FedMeanwhile:
        def collect(self):
            udp.feed([b"late:1|c"])
            return Aggregator(registry).collect()

        def forget(self, kind, key):
            pass

    meanwhile = FedMeanwhile()
    registry.remove_source(own)
    registry.add_source(meanwhile)
    registry.add_source(own)
    udp.feed([b"early:5|c"])
    first = registry.tick(10, 10).cumulative
    registry.remove_source(meanwhile)
    second = registry.tick(20, 10).cumulative
    assert ("late" in first.counters, first.counters["statsd.pieces_aggregated"]) == (False, 1)
    # Removing a source asks it a last time.
    assert (second.counters["late"], second.counters["statsd.pieces_aggregated"]) == (2, 2)


def test_the_page_gets_listeners_account_and_bad_lines():
    """Newest bad lines come first; without any there is no such section."""
    registry, (udp, unix), own = wired(events=lambda: {"kernel_dropped": 3})
    assert own.sections().keys() == {"Listeners", "Pieces"}
    udp.feed([b"a:1|c\nfirst"])
    registry.clock.advance(60)
    unix.feed([b"b:\x1b|c"])
    sections = own.sections()
    assert sections["Pieces"] == {"Received": 3, "Aggregated": 1, "Bad": 2, "Dropped": {}}
    assert sections["Listeners"][0] == {
        "Listener": "udp://127.0.0.1:8125",
        "Packets": 1,
        "Lines": 2,
        "Received": 2,
        "Taken": 1,
        "Bad": 1,
        "Dropped": {},
        "Socket": {"kernel_dropped": 3},
    }
    assert [line["Line"] for line in sections["Last bad lines"]] == [r"b:\x1b|c", "first"]
    assert sections["Last bad lines"][0]["Listener"] == "unix:///run/statsd.sock"


def test_they_can_be_called_otherwise():
    """The first part of the names is an option."""
    registry, _, _ = wired(prefix="fw")
    assert all(key.startswith("fw.") for key in registry.tick(10, 10).cumulative.counters)


def test_what_is_dropped_at_a_listener_or_its_socket_is_logged_once_a_minute(caplog):
    """With the cause, and what to change."""
    evicted = Counter()
    registry, (udp, unix), _ = wired(events=lambda: evicted)
    evicted["connections_evicted"], evicted["connections"] = 2, 5
    for end in (10, 20):
        udp.feed([b"_e{1,1}:a|b\nb:1|c"])
        unix.drop("cut_off")
        registry.tick(end, 10)
    assert [message.partition(": ")[2].partition(":")[0] for message in caplog.messages] == [
        "2 dropped, cause connections_evicted",
        "1 dropped, cause event",
        "1 dropped, cause cut_off",
    ]
    assert caplog.messages[0].startswith("udp://127.0.0.1:8125: ")
    assert "events of DogStatsD are not metrics: switch them off in the client" in caplog.text
