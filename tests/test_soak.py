"""The soak's account says since when something is missing. (The soak itself is ``make soak``.)"""

import time

from tests.soak import losses


def test_a_loss_is_told_from_what_arrives_late():
    """Windows arrive some seconds after they were measured, and two of them after a minute; one is lost."""
    epoch = time.time() - time.monotonic()
    first = int(epoch) + 1000
    made = [(first - epoch + 2 * second, 20 * second) for second in range(1, 121)]  # ten a second
    slots = {first + stamp: 50.0 for stamp in range(5, 245, 5)}
    assert losses(made, slots) == []
    slots[first + 120] = slots.pop(first + 60) + slots[first + 120]
    assert losses(made, slots) == []
    slots[first + 200] = 0
    ((when, lost),) = losses(made, slots)
    assert lost == 50
    assert 190 <= when + epoch - first <= 205
