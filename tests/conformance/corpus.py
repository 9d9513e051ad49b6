"""What was thought of: lines that are traps, each fed to both daemons by itself, and cases that need more."""

from .daemons import Case

__all__ = ["CASES", "CRASHES", "LINES"]

CRASHES = (
    "a:1|c|@+0.5",
    "a:1|c|@+.5",
    "a:1|c|@ 1",
    "a:1|c|@\t",
    "a:1|c|@ ",
    "a:1|c|@Infinity",
    "a:1|c|@+Infinity",
    "a:1|g|@+1",
    "a:1|ms|@ 1",
    "a:x|s|@+1",
    *(
        f"{name}:{piece}"
        for name in ("constructor", "__proto__", "toString", "toLocaleString", "valueOf", "hasOwnProperty")
        for piece in ("1|ms", "1|s")
    ),
    *(
        f"{name}:1|ms"
        for name in (
            *("isPrototypeOf", "propertyIsEnumerable", "__defineGetter__", "__defineSetter__"),
            *("__lookupGetter__", "__lookupSetter__"),
        )
    ),
    "__pro?to__:1|ms",
    "con?structor:1|c:2|ms",
)
"""Lines that kill statsd, each by itself."""

LINES = (
    # Nothing, or nearly so.
    *("", " ", "\t", "\r", "\0", ":", "::", "|", "||", "#", "|#", "|#:", ":|", ":|c", "a", "a:", "a::", "a|c", "a:|c"),
    *("a:1", "a:1|", "a:1||", "a:1|c|", "a:1|c||", "a:1|c|@", "a:|s", "a: |s", ":1|c", ":1|g", "?:1|c", " :1|c", "a:x"),
    # Numbers.
    *(
        f"a:{number}|{kind}"
        for kind in ("c", "g", "ms")
        for number in (
            *(
                "0",
                "-0",
                "+0",
                "00",
                "007",
                "5.",
                ".5",
                ".",
                "-.5",
                "+5",
                "++5",
                "- 5",
                "1e3",
                "1E3",
                "1e",
                "e1",
                "1e-7",
            ),
            *(
                "0x10",
                "0X1f",
                "0x",
                "-0x10",
                "0b101",
                "0b2",
                "0o17",
                "017",
                "1_000",
                "1,5",
                "½",
                "٣",
                "1 2",
                " 5 ",
                "5\t",
            ),
            *(
                "NaN",
                "nan",
                "Infinity",
                "-Infinity",
                "+Infinity",
                "infinity",
                "inf",
                "1e309",
                "-1e309",
                "1e308",
                "1e-400",
            ),
            *("true", "null", "undefined", "[]", "{}", "''", "\u00a05", "\ufeff5", "\u20035", "\x1c5", "5\x00", "5n"),
            *("123456789012345678", "9007199254740993", "0.1", "0.30000000000000004", "1e21", "1e20", "123456789e-15"),
            *(" ", "\t ", "1e-6", "0.0000015", "-1e-6", "1.5e300", "5e-324", "12345.678901234567"),
        )
    ),
    # Types.
    *("a:1|C", "a:1|h", "a:1|d", "a:1|m", "a:1|kv", "a:1|ms ", "a:1| ms", "a:-1|ms", "a:-1|ms ", "a:1|g ", "a:x| s"),
    *("a:1|\u00a0c", "a:1|c\u2028", "a:1|c\x0b", "a:1|constructor", "a:1|__proto__", "a:1|s", "a:1|c|c"),
    # Rates.
    *(
        f"a:3|{kind}|{rate}"
        for kind in ("c", "ms", "g", "s")
        for rate in (
            "@1",
            "@0.1",
            "@.1",
            "@0.3",
            "@1.",
            "@0.10",
            "@0",
            "@-1",
            "@2",
            "@1e-1",
            "@0.1.2",
            "@x",
            "@@1",
            "0.1",
        )
    ),
    *(
        "a:1|c|@0.5 ",
        "a:1|c|@0.5\t\u00a0",
        "a:1|c|@0.1|@0.2",
        "a:1|c|@0.1|x",
        "a:1|c|x|@0.1",
        "a:1|c|@00.5",
        "a:1|c|@1e1",
    ),
    # Several values.
    *(
        "a:1|c:2|c",
        "a:1|c:2|ms:3|g:4|s",
        "a:1|c:x|c:3|c",
        "a:1|c:2",
        "a:1:2",
        "a:1:2|c",
        "a:1|c:",
        "a:1|c::2|c",
        "a:u:r:n|s",
    ),
    *("a:|s:0|s", "a:0.1|g:+0.2|g:+0.3|g", "a:1|c|@0.5:2|c|@0.1", "a:1|ms:2|ms|@0.5", "a:1|g:+1|g:-3|g", "a:1|c:1|c|@"),
    # Keys.
    *("a b:1|c", "a  b\t:1|c", "a/b//c:1|c", "ä.ö:1|c", "日本:1|c", "a.b.c:1|c", ".:1|c", "..:1|c", "a.:1|c", ".a:1|c"),
    *(
        "a|b:1|c",
        "a@b:1|c",
        "a#b:1|c",
        "a\rb:1|c",
        "a\x00b:1|c",
        "A:1|c",
        "a-b_c=d:1|c",
        "\ufeffa:1|c",
        "<a>:1|c",
        "\\:1|c",
    ),
    *(
        "1:1|c",
        "01:1|c",
        "4294967294:1|g",
        "4294967295:1|g",
        "-1:1|c",
        "1.5:1|c",
        "1e3:1|c",
        "length:1|c",
        "prototype:1|c",
    ),
    *("constructor:1|c", "__proto__:1|c", "toString:1|g", "valueOf:+1|g", "a.constructor:1|ms", "constructor.a:1|s"),
    *("constructor;t=1:1|ms", "_proto_:1|c", "a:__proto__|s", "a:constructor|s", "a:toString|s:toString|s"),
    # Tags.
    *(
        "a;t=1:1|c",
        "a;t=1;u=2:1|ms",
        "a;u=2;t=1:1|c",
        "a;t:1|c",
        "a;:1|c",
        "a;;:1|c",
        "a;=:1|c",
        "a;t=:1|c",
        "a;=v:1|c",
    ),
    *(
        "a;t=1;t=2:1|c",
        "a;t=1=2:1|c",
        ";t=1:1|c",
        "a:1|c|#t:1",
        "a:1|c|#t:1,u:2",
        "a:1|c|#u:2,t:1",
        "a:1|c|#t",
        "a:1|c|#",
    ),
    *(
        "a:1|c|#t:1:2",
        "a:1|c|#a;b:c",
        "a:1|c|#a;b;c:d",
        "a:1|c|#,",
        "a:1|c|#t:1,",
        "a:1|c|#t=1",
        "a:1|c|#t:a b/c",
        "a:1|c|#t:",
    ),
    *(
        "a;t=1:1|c|#u:2",
        "a;t=1:1|c|#t:2",
        "a:1|c|@0.5|#t:1",
        "a:1|c|#t:1|@0.5",
        "a:1|c|#t:1|#u:2",
        "a|#t:1:1|c",
        "a:1|s|#t:~x",
    ),
    *(
        "a1:1|c|#a:1,a1:2",
        "a:1|c|#T:1,t:2",
        "a:1|g|#t:1\r",
        "a:1|c\r",
        "a:1|c|@0.5\r",
        "a:x|s\r",
        "a\r:1|c",
        "a:1|c\r\r",
    ),
    # What DogStatsD adds.
    *("_e{5,4}:title|text", "_e{1,1}:a|b|t:error|#x:y", "_sc|db|0", "_sc|db|0|m:down", "_e:1|c", "_sc:1|c", "_e{:1|c"),
    *(
        "a:1|c|T1656581400",
        "a:1|c|T",
        "a:1|c|Tx",
        "a:1|c|@0.5|T1",
        "a:1|c|c:abc",
        "a:1|c|#t:1|c:abc",
        "a:1|c|e:it-1|card:low",
    ),
    *("a:1:2:3|h", "a:1|d|@0.5", "a:-5|h", "a:1|h:2|ms"),
    # Long.
    *("a" * 4096 + ":1|c", "a" * 5000 + ":1|c", "a:" + "x" * 300 + "|s", "a" + ":1|c" * 200, "a:" + "9" * 400 + "|c"),
    *("a:0." + "0" * 400 + "1|c", "a:1|c|@0." + "0" * 20 + "1", "a:1|c|#" + ",".join(f"t{n}:v" for n in range(40))),
)
"""Lines that might be read in two ways."""

_G = {"graphite": {"legacyNamespace": False}}


def _case(*intervals: str | tuple[str, ...], **options: object) -> Case:
    parts = [(one,) if isinstance(one, str) else one for one in intervals]
    return Case([[text.encode("utf-8", "surrogateescape") for text in part] for part in parts], options)


_ALL = "h:1|c:5|ms:7|g:x|s\nh;t=1:2|c:6|ms:8|g:y|s\nweb.hits:3|c:9|ms:-4|g:z|s"
_MANY = "\n".join(f"t:{(n * 7919) % 251}.{n % 10}|ms" for n in range(256))

CASES = {
    "nothing": _case("", "", ""),
    "an empty datagram": _case(("", "", "a:1|c"), ()),
    "datagrams that end in a line feed": _case(("a:1|c\n", "\na:1|c\n\n")),
    "bytes that are no UTF-8": _case("a\udcff\udcfe:1|c\nx\udc80:1|c\nb:\udce2\udc82|s:\udce2|s", **_G),
    "idle series": _case(_ALL, "", _ALL, ""),
    "idle series, deleted": _case(_ALL, "", "web.hits:1|c:1|ms:+1|g:z|s", "", _ALL, deleteIdleStats=True, **_G),
    "all deleted but gauges": _case(_ALL, "", "h:+1|g", "", deleteIdleStats=True, deleteGauges=False),
    "only counters deleted": _case(_ALL, "", _ALL, "h:1|c", "", deleteCounters=True),
    "only timers deleted": _case(_ALL, "", _ALL, "h:1|ms", "", deleteTimers=True, **_G),
    "only sets deleted": _case(_ALL, "", _ALL, "h:1|s", "", deleteSets=True, **_G),
    "gauges live for two intervals": _case(_ALL, "h:+1|g", "", "h:+1|g", "", "", deleteGauges=True, gaugesMaxTTL=2),
    "gauges live for four intervals": _case(_ALL, "", "h:9|g", "", "", "", "", "", deleteGauges=True, gaugesMaxTTL=4),
    "a TTL without deletion": _case(_ALL, "", "", "", gaugesMaxTTL=2),
    "what comes back comes last": _case("a:1|c\nb:1|c", "b:1|c", "b:1|c\na:1|c\nc:1|c", deleteCounters=True),
    "deltas of an absent gauge": _case("a:+5|g\nb:-5|g\nc:+0|g", "a:+5|g\nb:-5|g\nc:-1|g"),
    "a gauge to below zero": _case("a:0|g\na:-10|g", "a:-10|g", "a:0|g:-1|g", "a:+11|g", "a:-1|g:5|g:-0.5|g"),
    "fractions are added in order": _case(
        ("a:0.1|c", "a:0.2|c\na:0.3|c", "a:1|c\na:0.1|c\na:1e16|c\na:-1e16|c\na:0.1|c")
    ),
    "many equal lines": _case(("a:0.1|c\n" * 500, "b:1|c\n" * 500, "c:3|g\n" * 500), ("c:+1|g\n" * 500,)),
    "256 samples": _case(_MANY, percentThreshold=[90, 50, -5, 99.9, 0.1, 100]),
    "percentiles of few samples": _case(
        "a:1|ms\nb:1|ms:2|ms\nc:3|ms:1|ms:2|ms\nd:1|ms:1|ms:1|ms:1|ms",
        percentThreshold=[1, 10, 25, 33.4, 50, 66.7, 75, 90, 99.99, 100],
        **_G,
    ),
    "the largest so many percent": _case(
        "a" + "".join(f":{n * n % 17}.5|ms" for n in range(20)) + "\nb:7|ms",
        percentThreshold=[-0.1, -1, -10, -25, -33.4, -50, -97],
        **_G,
    ),
    "one percentile": _case("a:1|ms:2|ms:3|ms", percentThreshold=50),
    "a percentile given twice": _case("a:1|ms:2|ms:3|ms", percentThreshold=[90, 50, 90]),
    "percents of many digits": _case("a:1|ms:2|ms:3|ms", percentThreshold=[12.345678901, 1e-7, -1e-7, 100.0, -0.001]),
    "a share is computed as statsd does": _case(
        "a" + "".join(f":{n}|ms" for n in range(25)), percentThreshold=[58, -58]
    ),
    "halves are rounded up": _case(
        "a" + "".join(f":{n}|ms" for n in range(10)), percentThreshold=[5, 15, 25, 35, -45, 55]
    ),
    "bins": _case(
        "web.a:0|ms:10|ms:10.5|ms:99|ms:1000|ms\nweb.b:1|ms\nother:5|ms\nt;web=1:5|ms",
        histogram=[{"metric": "web", "bins": [10, 10.5, 100, "inf"]}, {"metric": "", "bins": [5.25, 6]}],
    ),
    "no bins for some": _case(
        "web:5|ms\nother:5|ms", histogram=[{"metric": "web", "bins": []}, {"metric": "", "bins": [9]}]
    ),
    "rates only": _case(_ALL, flush_counts=False),
    "rates only, newer namespace": _case(_ALL, flush_counts=False, **_G),
    "chosen statistics": _case(
        _ALL,
        "",
        calculatedTimerMetrics=["count", "upper_percent", "sum_squares_percent", "histogram", "lower_percent"],
        percentThreshold=[90, 99.9, -10],
        histogram=[{"metric": "h", "bins": [6, "inf"]}],
    ),
    "chosen statistics of which there is none": _case(_ALL, "", calculatedTimerMetrics=["nonsense"]),
    "every part of the namespace": _case(
        _ALL,
        graphite={
            "legacyNamespace": False,
            "globalPrefix": "g.p",
            "prefixCounter": "c",
            "prefixTimer": "t.t",
            "prefixGauge": "ga",
            "prefixSet": "s",
            "globalSuffix": "suf.fix",
        },
        prefixStats="own.stats",
        histogram=[{"metric": "h", "bins": [6]}],
    ),
    "no part of the namespace": _case(
        "a:1|c:2|ms:3|g:4|s",
        graphite={
            **{"legacyNamespace": False, "globalPrefix": ""},
            **{"prefixCounter": "", "prefixTimer": "", "prefixGauge": "", "prefixSet": ""},
        },
    ),
    "legacy ignores prefixes": _case(
        _ALL, graphite={"globalPrefix": "x", "prefixTimer": "y", "globalSuffix": "z"}, prefixStats="own"
    ),
    "series called like statsd's own": _case(
        "statsd.packets_received:5|c\nstatsd.x:1|c:2|g\nstatsd.timestamp_lag:7|g", "statsd.metrics_received:0.5|c", ""
    ),
    "a client's series under its own name, deleted": _case("statsd.x:1|c:2|g", "", "", deleteIdleStats=True),
    "the lag stays in its place": _case("a:1|g", "b:1|g", "c:1|g\na:1|g", "b:1|g", "", deleteGauges=True),
}
"""What needs several lines, several intervals or options."""
