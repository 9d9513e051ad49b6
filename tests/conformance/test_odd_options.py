"""Options of statsd with values that are odd in JavaScript: what is sent then is the same, or the option is named.

Every option that changes what Graphite gets is given ``null``, 0, texts, lists, nested lists and objects. Where sockets
are concerned, ``tests/forwarder/test_statsd_import.py`` says what statsd does.
"""

import json
import math
from typing import Any

import pytest

from forwarder.config import of_file, settle
from forwarder.statsd_import import convert

from .daemons import INTERVAL, Case, Crash, ours

VALUES: list[Any] = [
    *(None, False, True, 0, 1, -1, 2.5, math.nan, math.inf),
    *("", "0", "1", "90.0", "-10.0", " 7 ", "0x10", "1e1", "NaN", "x", "false"),
    *([], {}, [[]], [0], [None], ["x"], ["count"], [[5]], [5, "5.0", -20, "-10.0", None, 150, "x", 90], {"a": 1}),
]
LISTS = {
    "percentThreshold": VALUES,
    "calculatedTimerMetrics": [*VALUES, ["count", 5, "upper_percent", ""], [None, 5], [["count"]]],
    "histogram": [
        *VALUES,
        *([{"metric": metric, "bins": [7, "inf"]}] for metric in VALUES),
        *([{"metric": "h", "bins": bins}, {"metric": "", "bins": [8]}] for bins in VALUES),
        [{"metric": "h", "bins": ["5.0", "6.50", 7, None, "x", 3, "8", "8.0", " 9", "Infinity"]}],
        [{"metric": "h", "bins": [math.inf]}, None, {"bins": [5]}, {"metric": ""}],
    ],
}
"""Options that are lists: an entry that cannot be taken over leaves the others as they are."""
TRUTHS = ["flush_counts", "deleteIdleStats", "deleteCounters", "deleteTimers", "deleteSets", "deleteGauges"]
OPTIONS = {
    **LISTS,
    **dict.fromkeys([*TRUTHS, "gaugesMaxTTL", "graphite", "keyFlush", "debug", "prefixStats"], VALUES),
    "flushInterval": [*VALUES, "5000", [5000], "0x1388", " 5000 "],
    **{
        f"graphite.{name}": VALUES
        for name in (
            *("legacyNamespace", "globalPrefix", "globalSuffix"),
            *("prefixCounter", "prefixTimer", "prefixGauge", "prefixSet"),
        )
    },
}
NEWER: dict[str, Any] = {"deleteIdleStats": True, "graphite": {"legacyNamespace": False}}
"""What options are beside that the legacy namespace ignores, or that overrule `deleteIdleStats`."""
INTERVALS = [[b"h:1|c:5|ms:7|g:x|s\nh:6|ms\nh:7.5|ms\nweb.hits:3|c:9|ms:-4|g:z|s"], [], [b"h:1|g"], []]
DURATIONS = ("calculationtime", "processing_time", "last_exception", "last_flush", "flush_time", "flush_length")


def lines(flushes: list[str]) -> list[list[str]]:
    """The lines of each flush, without stamps and the values of durations."""
    found = []
    for flush in flushes:
        texts = [line.rpartition(" ")[0] for line in flush.splitlines()]
        found.append([text.rpartition(" ")[0] if any(word in text for word in DURATIONS) else text for text in texts])
    return found


def with_option(base: dict[str, Any], option: str, value: Any) -> dict[str, Any]:
    table, _, name = option.rpartition(".")
    return {**base, table: {**base.get(table, {}), name: value}} if table else {**base, option: value}


@pytest.mark.parametrize("option", OPTIONS)
def test_the_same_is_sent_or_the_option_is_named(option, statsd):
    """Where nothing is left out, every line is the same; of a list, also those that an entry left out does not make."""
    same = 0
    base = NEWER if option.startswith(("delete", "graphite")) else {}
    for value in OPTIONS[option]:
        options = {"graphiteHost": "127.0.0.1", "flushInterval": INTERVAL * 1000, **with_option(base, option, value)}
        conversion = convert(json.dumps(options), "config.js")
        named = {line.partition(":")[0] for line in conversion.left_out} - {"mgmt_address"}
        assert all(name.startswith(option) for name in named), conversion.left_out
        mine = lines(ours(Case(INTERVALS, options), settle(of_file(conversion.toml, "converted"))))
        try:
            theirs = lines(statsd(Case(INTERVALS, options)))
        except Crash:
            theirs = None
        if theirs is None:
            assert named or option == "prefixStats", value
        elif option in LISTS:
            for here, there in zip(mine, theirs, strict=True):
                assert named or here == there, value
                assert [line for line in there if line in here] == here, value
        elif not named:
            assert mine == theirs, value
        same += mine == theirs
    assert same >= 3


def test_a_spelled_number_keeps_its_spelling(statsd):
    """A number in quotes stands in the name as it is written there."""
    options = {"percentThreshold": ["90.0", "+50", 90], "histogram": [{"metric": "", "bins": ["7.0", "inf"]}]}
    case = Case([[b"h:5|ms:7|ms:9|ms"]], options)
    (mine,) = lines(ours(case))
    uppers = ["upper_90_0 9", "upper_+50 7", "upper_90 9"]
    assert [line for line in mine if ".upper_" in line] == [f"stats.timers.h.{upper}" for upper in uppers]
    assert "stats.timers.h.histogram.bin_7_0 1" in mine
    assert [mine] == lines(statsd(case))
