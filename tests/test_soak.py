"""The soak's account says since when something is missing. (The soak itself is ``make soak``.)"""

from tests.soak import losses


def test_a_loss_is_told_from_what_arrives_late():
    """Windows arrive some seconds after they were measured, one after a minute, one too early; and one is lost."""
    made = [(1000.0 + 2 * second, 20 * second) for second in range(1, 121)]  # ten a second
    slots = {6000 + stamp: 50.0 for stamp in range(5, 245, 5)}
    assert losses(made, slots, epoch=5000) == []
    slots[6120] += slots.pop(6060)
    assert losses(made, slots, epoch=5000) == []
    slots[6030] += slots.pop(6035)
    assert losses(made, slots, epoch=5000) == []
    slots[6200] = 0
    ((when, lost),) = losses(made, slots, epoch=5000)
    assert lost == 50
    assert 1190 <= when <= 1200
