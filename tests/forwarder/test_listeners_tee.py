"""Taps let others hear what a listener hears, and do no harm to the one that it feeds."""

import pytest

from forwarder.listeners.tee import Tee

from .heard import Broken, Heard


def test_everybody_hears_everything_and_the_sink_first():
    """Drops and settling are the sink's alone."""
    order = []
    heard = Heard()
    tap = Tee(heard, [lambda chunks: order.append(("one", chunks, list(heard.chunks))), order.append])
    tap.feed([b"a"])
    tap.drop("cause", 2)
    tap.flush()
    assert order == [("one", [b"a"], [b"a"]), [b"a"]]
    assert (heard.dropped, heard.flushed) == ({"cause": 2}, 1)


def test_one_that_fails_is_left_out(caplog):
    """It is logged once; the sink and the others go on."""
    heard, others = Heard(), []
    tap = Tee(heard, [lambda chunks: 1 / 0, others.append])
    for chunk in (b"a", b"b"):
        tap.feed([chunk])
    assert heard.chunks == [b"a", b"b"]
    assert others == [[b"a"], [b"b"]]
    assert len(caplog.records) == 1


def test_a_sink_that_fails_is_the_listeners_business():
    """Its error passes through, after everybody has heard."""
    others = []
    with pytest.raises(RuntimeError):
        Tee(Broken(), [others.append]).feed([b"a"])
    assert others == [[b"a"]]
