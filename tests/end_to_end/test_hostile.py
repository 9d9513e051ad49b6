"""A short run of hostile traffic; ``make hostile`` is the long one."""

import pytest

from tests import hostile

SECONDS = 600.0
GOOD = {"memory": [30 << 20, 31 << 20], "answers": [0.1], "seconds": SECONDS, "ticks": 600}
FLUSHER = {"errors": {}, "skipped": 0}


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        ({"ticks": 594, "flusher": FLUSHER | {"skipped": 6}}, []),
        ({"ticks": 593, "flusher": FLUSHER | {"skipped": 7}}, ["ticks were not on time"]),
        ({"ticks": 590}, ["intervals have neither a window nor are counted as skipped"]),
        ({"flusher": FLUSHER | {"errors": {"MemoryError": 1}}}, ["ticks failed"]),
        ({"sent": 5, "counted": 4}, ["lines over TCP were lost or doubled"]),
        ({"sent": 5, "counted": 6}, ["lines over TCP were lost or doubled"]),
        ({"datagrams_sent": 5, "datagrams_counted": 3, "kernel_drops": 2}, []),
        ({"datagrams_sent": 5, "datagrams_counted": 3, "kernel_drops": 1}, ["datagrams are unaccounted for"]),
        ({"memory": [30 << 20, 60 << 20]}, ["memory grew"]),
        ({"memory": [30 << 20, 60 << 20], "seconds": 15, "ticks": 15}, []),
        ({"memory": [30 << 20, 100 << 20], "seconds": 15, "ticks": 15}, ["memory grew"]),
        ({"refused": [503]}, ["health did not answer"]),
    ],
)
def test_a_report_names_what_does_not_hold(changes, faults):
    """A tick that is skipped now and then loses nothing: its interval goes on into the next."""
    assert hostile.Report(**{**GOOD, "flusher": FLUSHER, **changes}).faults() == faults


def test_hostile_traffic_costs_no_good_line():
    """Nothing over TCP, and over UDP what the kernel dropped; ticks are on time, memory stays, and the page answers."""
    report = hostile.run(15, 10_000)
    assert report.faults() == [], report
    assert report.socket["foreign_protocol"] > 0
