"""The library's own metrics are series that can be read."""

from dataclasses import replace

from metricslib.delivery import NodeStatus, SenderStatus
from metricslib.drops import DropCounter
from metricslib.self_metrics import SelfMetrics


def status(label: str, sent: int) -> SenderStatus:
    return SenderStatus(
        label=label,
        up=True,
        since=0.0,
        age=2.5,
        windows_sent=sent,
        points_sent=10 * sent,
        bytes_sent=100 * sent,
        errors=0,
        errors_by_type={},
        dropped={},
        waiting_batches=0,
        waiting_points=0,
        waiting_bytes=7,
        last_error=None,
    )


def test_a_destination_can_be_read_from_its_tag():
    """A URL has characters that a tag may not have; what stands for them keeps its parts apart."""
    own = SelfMetrics("metricslib", DropCounter(), DropCounter(), lambda: [status("statsd+unix:///run/statsd.sock", 1)])
    collected = own.collect()
    assert collected.counters["metricslib.windows_sent;destination=statsd_unix_run_statsd.sock"] == 1
    assert collected.gauges["metricslib.last_success_age;destination=statsd_unix_run_statsd.sock"].base == 2.5


def test_counters_are_what_is_new():
    """What was reported once is not reported again, and nothing new is nothing at all."""
    dropped, sent = DropCounter(), [3]
    own = SelfMetrics("m", dropped, DropCounter(), lambda: [status("console:", sent[0])])
    dropped.add("bad_value", 4)
    assert own.collect().counters["m.dropped;cause=bad_value"] == 4
    assert own.collect().counters == {}
    sent[0] = 5
    assert own.collect().counters == {
        "m.windows_sent;destination=console": 2,
        "m.points_sent;destination=console": 20,
        "m.bytes_sent;destination=console": 200,
    }


def test_each_server_behind_a_destination_has_its_failures():
    """So that one can be watched although the destination as a whole is up."""
    nodes = [
        NodeStatus("graphite://a:2003", False, 0.0, 3, "refused"),
        NodeStatus("graphite://b:2003", True, 0.0, 0, None),
    ]
    cluster = replace(status("graphite://a:2003,b:2003", 0), nodes=nodes)
    own = SelfMetrics("m", DropCounter(), DropCounter(), lambda: [cluster])
    assert own.collect().counters == {"m.send_errors;destination=graphite_a_2003": 3}
