"""The day of the example shop."""

import doctest

from examples.shop import day


def test_the_examples_are_true():
    assert doctest.testmod(day).failed == 0
