"""A short run of hostile traffic; ``make hostile`` is the long one."""

from tests import hostile


def test_hostile_traffic_costs_no_good_line():
    """Nothing over TCP, and over UDP what the kernel dropped; ticks are on time, memory stays, and the page answers."""
    report = hostile.run(15, 10_000)
    assert report.faults() == [], report
    assert report.socket["foreign_protocol"] > 0
