"""Cases for both daemons, drawn from a grammar of statsd's lines, or from characters that mean something in them."""

from typing import Any

from hypothesis import strategies as st

from .daemons import Case

__all__ = ["cases", "datagrams", "garbage"]

# Few keys, so that lines meet. Names that mean something to JavaScript, integers and dirt among them.
_NAMES = st.one_of(
    st.sampled_from(["a", "b", "web.hits", "db-1.query", "A_b", "0x1", "1.5", "007", "a..b", ".a", "statsd2.x", "9e9"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["a b", "a/b", "ä.b", "a  b\t", "a?b", "%", "a=b", "-", "\u00a0x", "\ufeffx", "x\x00y", "\x1cz"]),
    st.sampled_from(["constructor", "__proto__", "toString", "hasOwnProperty", "5", "0", "4294967295", ""]),
)
_KEY_TAGS = st.sampled_from(["", "", "", "", ";t=1", ";t=1;u=2", ";u=2;t=1", ";t", ";;", ";t=1;t=2", ";=x", ";a=b=c"])
_TAGS = st.sampled_from(
    [
        "",
        "",
        "",
        "",
        "|#",
        "|#t:1",
        "|#t:1,u:2",
        "|#u:2,t:1",
        "|#t",
        "|#t:1:2",
        "|#a;b:c",
        "|#,",
        "|#t:1|@0.5",
        "|#T v:w",
    ]
)
_GOOD_NUMBERS = st.one_of(
    st.integers(0, 1000).map(str),
    st.integers(-1000, 10**6).map(str),
    st.floats(0, 1e6, allow_nan=False).map(repr),
    st.decimals(-1000, 1000, places=3, allow_nan=False).map(str),
    st.integers(-9, 9).map("{:+}".format),
)
_ODD_NUMBERS = st.sampled_from(
    [
        *(" 5 ", "0x10", "0b11", "0o17", "-0x1", "1e3", "1E-7", "1e21", ".5", "5.", "+.5", "-0", "1_0", "1,5", "", " "),
        *("x", "NaN", "Infinity", "-Infinity", "1e400", "1e308", "1e200", "\t7", "\u00a08", "5\r", "00012", "٣", "1e"),
    ]
)
_NUMBERS = st.one_of(_GOOD_NUMBERS, _GOOD_NUMBERS, _GOOD_NUMBERS, _ODD_NUMBERS)
_MEMBERS = st.sampled_from(["x", "y", "1", "", " ", "user 7", "__proto__", "constructor", "ü", "a/b", "0"])
_GOOD_TYPES = st.sampled_from(["c", "c", "ms", "ms", "g", "s"])
_ODD_TYPES = st.sampled_from(["h", "d", "", " c", "g ", "ms ", " s", "x", "C", "mss", "c\t"])
_GOOD_RATES = st.sampled_from(["", "", "", "", "", "|@0.1", "|@0.5", "|@1", "|@.25", "|@0.3", "|@1.0", "|@0.1 "])
_ODD_RATES = st.sampled_from(
    [
        *("|@0", "|@2", "|@-1", "|@+0.5", "|@ 1", "|@1e-1", "|@", "|@x", "|", "|x", "|@0.5|@2", "|@0.5|x", "|@1.2.3"),
        *("|@0x1", "|@Infinity", "|T12", "|c:in-1", "|@0.5|c:in-1", "|T1|@0.5", "|e:it-1", "|@0.5|T1|card:low", "|@\t"),
    ]
)
_PLAIN_NAMES = st.sampled_from(
    ["a", "b", "web.hits", "db-1.query", "a b", "x/y", "ä.z", "0x1", "1.5", "..", "9e9", "-"]
)
_PLAIN_TAGS = st.sampled_from(["", "", "", "|#t:1", "|#t:1,u:2", "|#T v:w/x"])
_PLAIN_KEY_TAGS = st.sampled_from(["", "", "", ";t=1", ";t=1;u=2"])
# Made once, and not in each draw: hypothesis checks every strategy that it has not seen.
_GOOD_KINDS = st.lists(_GOOD_TYPES, min_size=1, max_size=3)
_GOOD_MEMBERS = st.sampled_from(["x", "y", "1", "", "ü"])
_TAGS_IN_ONE_PLACE = st.one_of(st.tuples(_PLAIN_KEY_TAGS, st.just("")), st.tuples(st.just(""), _PLAIN_TAGS))
_TYPES = st.one_of(_GOOD_TYPES, _ODD_TYPES)
_RATES = st.one_of(_GOOD_RATES, _ODD_RATES)
_WITH_TYPE = st.integers(0, 20).map(bool)
_ENDS = st.sampled_from(["", "", "\r", "\r\r"])


@st.composite
def _plain_line(draw: st.DrawFn) -> str:
    """A line that means the same to both daemons."""
    pieces = []
    for kind in draw(_GOOD_KINDS):
        value = draw(_GOOD_MEMBERS if kind == "s" else _GOOD_NUMBERS)
        pieces.append(f"{value}|{kind}{draw(_GOOD_RATES) if kind != 'ms' else ''}")
    tags = draw(_TAGS_IN_ONE_PLACE)
    return ":".join([draw(_PLAIN_NAMES) + tags[0], *pieces]) + tags[1]


@st.composite
def _odd_piece(draw: st.DrawFn) -> str:
    kind = draw(_TYPES)
    value = draw(_MEMBERS if kind.strip() == "s" else _NUMBERS)
    fields = f"|{kind}{draw(_RATES)}"
    return value + (fields if draw(_WITH_TYPE) else "")


_ODD_PIECES = st.lists(_odd_piece(), max_size=3)


@st.composite
def _odd_line(draw: st.DrawFn) -> str:
    pieces = draw(_ODD_PIECES)
    return ":".join([draw(_NAMES) + draw(_KEY_TAGS), *pieces]) + draw(_TAGS) + draw(_ENDS)


_OTHER_LINES = st.sampled_from(
    ["", "", "a", ":", "a:", "|#", "_e{1,1}:a|b", "_sc|db|0", "\r", " ", "a:1|c|#t:1|#u", "::"]
)
_DATAGRAMS = [
    st.lists(st.lists(lines, max_size=6).map("\n".join), max_size=4)
    for lines in (
        _plain_line(),
        st.one_of(_plain_line(), _plain_line(), _plain_line(), _plain_line(), _odd_line(), _OTHER_LINES),
    )
]

_PARTS = st.sampled_from(["", "x", "x.y"])
_NAMESPACES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"legacyNamespace": st.booleans()},
        optional={
            "globalPrefix": _PARTS,
            "prefixCounter": st.sampled_from(["", "c", "counts.c"]),
            "prefixTimer": st.sampled_from(["t", "timers.t"]),
            "prefixGauge": st.sampled_from(["g", "gauges.g"]),
            "prefixSet": st.sampled_from(["", "s"]),
            "globalSuffix": st.sampled_from(["suffix", "a.b"]),
        },
    ),
)
_PERCENTS = st.lists(
    st.sampled_from([90, 50, 99, 99.9, 75.5, 100, -10, -50, -99.5, -100, 0.1, 1, 33.333, -0.5]), max_size=4
)
_HISTOGRAM = st.lists(
    st.fixed_dictionaries(
        {
            "metric": st.sampled_from(["", "b", "web", "t=1", "nothing"]),
            "bins": st.sampled_from([[], [10], [1, 10.5, 100, "inf"], [-5, 0, 0.001], ["inf"], [1e21]]),
        }
    ),
    max_size=2,
)
_STATISTICS = ["count", "count_ps", "upper", "std", "sum", "median", "upper_percent", "count_percent", "lower_percent"]
_STATISTICS += ["sum_squares_percent", "upper_99_percent", "mean_33_percent", "histogram", "nonsense"]
_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "graphite": _NAMESPACES,
        "percentThreshold": _PERCENTS.filter(bool),
        "histogram": _HISTOGRAM,
        "flush_counts": st.booleans(),
        "calculatedTimerMetrics": st.lists(st.sampled_from(_STATISTICS), max_size=4, unique=True),
        "deleteIdleStats": st.booleans(),
        "deleteCounters": st.booleans(),
        "deleteTimers": st.booleans(),
        "deleteSets": st.booleans(),
        "deleteGauges": st.booleans(),
        "gaugesMaxTTL": st.integers(1, 4),
        "prefixStats": st.sampled_from(["statsd", "stats.own", "fw"]),
    },
)


def _case(intervals: list[list[str]], options: dict[str, Any]) -> Case:
    return Case([[text.encode("utf-8", "surrogatepass") for text in datagrams] for datagrams in intervals], options)


cases = st.builds(_case, st.one_of([st.lists(datagrams, min_size=1, max_size=5) for datagrams in _DATAGRAMS]), _OPTIONS)
"""Some intervals of lines under any options: half of the cases only of good lines, half with odd ones among them."""

_CHARACTERS = st.text(alphabet=":|#@,;=. \t\r\n/+-acdeghmsxTI_019\u00a0\ufeffä", max_size=40)
datagrams = st.one_of(*_DATAGRAMS, st.lists(_CHARACTERS, max_size=4)).map(
    lambda texts: [text.encode("utf-8", "surrogatepass") for text in texts]
)
"""Datagrams of all of these, as they come at one time."""
garbage = st.builds(_case, st.lists(st.lists(_CHARACTERS, max_size=4), min_size=1, max_size=2), st.just({}))
"""Anything at all, of characters that mean something."""
