"""statsd's configuration as ours: every option has its place or a reason, and what comes out is valid."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from forwarder.cli import main
from forwarder.config import OPTIONS, Config, ConfigError, of_file, settle
from forwarder.statsd_import import OURS, STATSD, Conversion, convert, table

ROOT = Path(__file__).parent.parent.parent
STATSD_PACKAGE = "tests/end_to_end/node_modules/statsd"
NOTHING_SAID = {
    "listen": ["udp://0.0.0.0:8125"],
    "own_account": False,
    "expire": 0,
    "naming": {"legacy": True},
}
CONSOLE = (
    'mgmt_address: not set, so statsd is open to all hosts; here only to this host. To open it: console = "[::]:PORT"'
)


def converted(options: dict[str, Any] | str) -> Conversion:
    text = options if isinstance(options, str) else json.dumps(options)
    return convert(text, "config.js")


def settings(options: dict[str, Any] | str) -> dict[str, Any]:
    """What the converted configuration says beside what it always says."""
    conversion = converted(options)
    settle(of_file(conversion.toml, "converted"))
    document = tomllib.loads(conversion.toml)
    for name, value in NOTHING_SAID.items():
        if document.get(name) == value:
            del document[name]
    return document


def left_out(options: dict[str, Any]) -> list[str]:
    settings(options)
    return [line for line in converted(options).left_out if line != CONSOLE]


# -- the table


def source(*names: str) -> str:
    return "\n".join((ROOT / STATSD_PACKAGE / name).read_text() for name in names)


def test_every_option_of_the_example_is_in_the_table(need: Callable[..., None]):
    """The comment in the real statsd's exampleConfig.js describes no option that the table does not have."""
    need(STATSD_PACKAGE)
    described, parent = [], ""
    for indent, name in re.findall(r"^ {2}( {2})?(\w+):\s", source("exampleConfig.js"), re.MULTILINE):
        parent = parent if indent else name
        # The keys of an entry of `servers` are those that a single server has at the top.
        described.append(f"{parent}.{name}" if indent and parent != "servers" else name)
    assert len(described) > 45
    assert set(described) - {"keyFlush", "console", "log", "graphite"} <= {option.name for option in STATSD}


def test_every_option_that_the_source_reads_is_in_the_table(need: Callable[..., None]):
    """Neither does the real statsd's source read one, documented or not."""
    need(STATSD_PACKAGE)
    files = ["stats.js", "lib/process_mgmt.js", "lib/mgmt_server.js"]
    files += [f"{folder}/{name}.js" for folder in ("backends", "servers") for name in ("udp", "tcp", "graphite")]
    text = source(*(file for file in files if (ROOT / STATSD_PACKAGE / file).exists()))
    read = set(re.findall(r"\bconf(?:ig)?\.(\w+)", text)) - {"configFile", "log", "graphite", "keyFlush"}
    assert len(read) >= 30
    assert read <= {option.name for option in STATSD}


def test_every_option_has_its_place_or_a_reason():
    """What the table names is an option of ours, and made by something; what is gone has a reason."""
    assert {option.ours for option in STATSD if option.ours} | {"own_account", "expire"} == OURS.keys()
    assert OURS.keys() <= OPTIONS.keys()
    assert all(option.ours or option.why for option in STATSD)
    assert len({option.name for option in STATSD}) == len(STATSD)


def test_the_page_shows_the_table():
    """docs/reference/statsd-options.md has the table as it is here: forwarder.statsd_import.table() writes it."""
    page = (ROOT / "docs" / "reference" / "statsd-options.md").read_text(encoding="utf-8")
    assert table() in page


# -- statsd's defaults


def test_nothing_said():
    """Without a word, statsd's own defaults are written out where ours are others; the rest is ours already."""
    assert settings({}) == {}
    assert tomllib.loads(converted({}).toml) == NOTHING_SAID
    default, config = Config().values(), settle(of_file(converted({}).toml, "")).values()
    differ = {"listen", "own_account", "expire", "naming.legacy"}
    assert {name for name in config if config[name] != default[name]} == differ
    assert converted({}).left_out == (CONSOLE,)


def test_the_example_of_statsd(need: Callable[..., None]):
    """exampleConfig.js itself, with its comment of 120 lines."""
    need(STATSD_PACKAGE)
    assert settings(source("exampleConfig.js")) == {"to": ["graphite://graphite.example.com:2003"]}


# -- option by option


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"port": 9125}, {"listen": ["udp://0.0.0.0:9125"]}),
        ({"port": "9125", "address": "10.0.0.1"}, {"listen": ["udp://10.0.0.1:9125"]}),
        ({"address_ipv6": True}, {"listen": ["udp://[::]:8125"]}),
        ({"address": "2001:db8::7", "address_ipv6": True}, {"listen": ["udp://[2001:db8::7]:8125"]}),
        ({"server": "./servers/tcp"}, {"listen": ["tcp://[::]:8125"]}),
        (
            {"server": "./servers/tcp", "socket": "/run/statsd.sock", "socket_mod": "0666"},
            {"listen": ["unix:///run/statsd.sock"], "socket_mode": "0666"},
        ),
        (
            {"server": "./servers/tcp", "socket": "/s", "socket_mod": 0o660},
            {"listen": ["unix:///s"], "socket_mode": "0660"},
        ),
        (
            {
                "port": 1,
                "servers": [
                    {"server": "./servers/udp", "address": "127.0.0.1", "port": 8126},
                    {"server": "/opt/statsd/servers/tcp.js", "address": "0.0.0.0", "port": 8125},
                    {},
                ],
            },
            {"listen": ["udp://127.0.0.1:8126", "tcp://0.0.0.0:8125", "udp://0.0.0.0:8125"]},
        ),
        ({"mgmt_port": 9126}, {"console": "127.0.0.1:9126"}),
        ({"mgmt_address": "::1"}, {"console": "[::1]:8126"}),
        ({"mgmt_address": "0.0.0.0", "mgmt_port": 1}, {"console": "0.0.0.0:1"}),
        ({"healthStatus": "down"}, {"health": "down"}),
        ({"graphiteHost": "g"}, {"to": ["graphite://g:2003"]}),
        ({"graphiteHost": "::1", "graphitePort": "2013"}, {"to": ["graphite://[::1]:2013"]}),
        ({"graphiteHost": "g", "graphiteProtocol": "pickle"}, {"to": ["graphite+pickle://g:2004"]}),
        (
            {"graphiteHost": "g", "graphiteProtocol": "pickle", "graphitePicklePort": 1},
            {"to": ["graphite+pickle://g:1"]},
        ),
        ({"graphiteHost": "g", "backends": ["./backends/console"]}, {"to": ["console:"]}),
        (
            {"graphiteHost": "g", "backends": ["./backends/graphite", "./backends/console"]},
            {"to": ["graphite://g:2003", "console:"]},
        ),
        ({"graphitePort": 2004}, {}),
        ({"graphite": {"legacyNamespace": False}}, {"naming": {"legacy": False}}),
        (
            {
                "graphite": {
                    "legacyNamespace": False,
                    "globalPrefix": "",
                    "prefixCounter": "c",
                    "prefixTimer": "t",
                    "prefixGauge": "g",
                    "prefixSet": "s.x",
                    "globalSuffix": "web1",
                }
            },
            {
                "naming": {
                    "legacy": False,
                    "namespace": "",
                    "counters": "c",
                    "timers": "t",
                    "gauges": "g",
                    "sets": "s.x",
                    "suffix": "web1",
                }
            },
        ),
        ({"prefixStats": "statsd.web1"}, {"own_prefix": "statsd.web1"}),
        ({"flushInterval": 60000}, {"interval": 60}),
        ({"flushInterval": "5000"}, {"interval": 5}),
        ({"percentThreshold": 95}, {"percentiles": [95]}),
        ({"percentThreshold": [50, "99.9", -10]}, {"percentiles": [50, 99.9, -10]}),
        ({"percentThreshold": 0}, {"percentiles": [90]}),
        ({"percentThreshold": []}, {"percentiles": []}),
        ({"percentThreshold": ["90.0", [95], "-5.50"]}, {"percentiles": ["90.0", 95, "-5.50"]}),
        (
            {"histogram": [{"metric": "foo", "bins": []}, {"metric": "", "bins": [0.5, "10", "inf"]}]},
            {
                "naming": {
                    "legacy": True,
                    "bins": [{"match": "foo", "bounds": []}, {"match": "", "bounds": [0.5, 10, float("inf")]}],
                }
            },
        ),
        ({"flush_counts": False}, {"naming": {"legacy": True, "flush_counts": False}}),
        (
            {"calculatedTimerMetrics": ["count", "upper_percent", "histogram"]},
            {"naming": {"legacy": True, "calculated": ["count", "upper_percent", "histogram"]}},
        ),
        ({"deleteIdleStats": True}, {"delete_idle": ["counters", "timers", "histograms", "gauges", "sets"]}),
        (
            {"deleteIdleStats": True, "deleteGauges": False},
            {"delete_idle": ["counters", "timers", "histograms", "sets"]},
        ),
        (
            {"deleteIdleStats": 1, "deleteTimers": None, "deleteSets": 0, "deleteGauges": []},
            {"delete_idle": ["counters", "gauges"]},
        ),
        ({"flush_counts": 0}, {"naming": {"legacy": True, "flush_counts": False}}),
        ({"flush_counts": "0"}, {"naming": {"legacy": True, "flush_counts": True}}),
        (
            {"graphite": {"legacyNamespace": 0, "globalPrefix": "x"}},
            {
                "naming": {
                    **{"legacy": False, "namespace": "stats", "counters": ""},
                    **{"timers": "timers", "gauges": "gauges", "sets": "sets"},
                }
            },
        ),
        ({"calculatedTimerMetrics": []}, {"naming": {"legacy": True, "calculated": []}}),
        ({"calculatedTimerMetrics": [5]}, {"naming": {"legacy": True, "calculated": ["none"]}}),
        ({"port": " 0x1fbd ", "address": 0, "address_ipv6": "0"}, {"listen": ["udp://[::]:8125"]}),
        ({"server": "./servers/tcp", "socket": "9125", "address": 7}, {"listen": ["tcp://[::]:9125"]}),
        ({"servers": []}, {"listen": []}),
        ({"servers": None, "port": 0}, {}),
        ({"backends": [], "graphiteHost": "g"}, {"to": []}),
        ({"backends": 0, "graphiteHost": "g"}, {"to": ["graphite://g:2003"]}),
        (
            {"graphiteHost": "g", "graphitePort": 0, "graphiteProtocol": ["pickle"]},
            {"to": ["graphite+pickle://g:2004"]},
        ),
        (
            {
                "repeater": [{"port": 8126}, {"host": "", "port": "9"}],
                "repeaterProtocol": "udp6",
                "backends": ["repeater"],
            },
            {"to": [], "repeat": ["udp://[::1]:8126", "udp://[::1]:9"]},
        ),
        ({"keyFlush": {"interval": "x", "percent": 0}}, {}),
        ({"keyFlush": {"interval": [500], "percent": "5", "log": ""}}, {"key_flush": {"interval": 0.5, "percent": 5}}),
        ({"debug": "false"}, {"log_level": "debug"}),
        (
            {"dumpMessages": 0, "title": "", "log": {"level": ""}, "console": None, "automaticConfigReload": None},
            {},
        ),
        ({"deleteGauges": True, "gaugesMaxTTL": 6}, {"delete_idle": ["gauges"], "gauges_ttl": 6}),
        ({"gaugesMaxTTL": 1.5}, {"gauges_ttl": 1}),
        (
            {"keyFlush": {"interval": 1500, "percent": 10, "log": "/var/log/keys.log"}},
            {"key_flush": {"interval": 1.5, "percent": 10, "log": "/var/log/keys.log"}},
        ),
        (
            {
                "repeater": [{"host": "10.0.0.9", "port": 8125}, {"host": "::1", "port": "1"}],
                "backends": ["./backends/repeater"],
            },
            {"to": [], "repeat": ["udp://10.0.0.9:8125", "udp://[::1]:1"]},
        ),
        (
            {"repeater": [{"host": "b", "port": 8125}], "repeaterProtocol": "tcp", "backends": ["./backends/repeater"]},
            {"to": [], "repeat": ["tcp://b:8125"]},
        ),
        ({"debug": True}, {"log_level": "debug"}),
        ({"debug": False, "log": {"backend": "stdout"}, "title": None, "keyNameSanitize": True}, {"log_level": "info"}),
    ],
)
def test_what_an_option_becomes(options: dict[str, Any], expected: dict[str, Any]):
    """What statsd is told, and only that, is in the result, which is valid; nothing is left out."""
    assert settings(options) == expected
    assert [line for line in left_out(options) if not line.startswith("mgmt_address")] == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"title": "my statsd"}, "title: the service manager names the process"),
        ({"dumpMessages": True}, "dumpMessages: it would flood the log; the page shows the last bad lines"),
        (
            {"keyNameSanitize": False},
            "keyNameSanitize: names are always sanitised; with `false`, statsd sends tags unchanged",
        ),
        ({"automaticConfigReload": False}, "automaticConfigReload: the file may be half-written"),
        ({"console": {"prettyprint": True}}, "console.prettyprint: the destination `console:` prints"),
        ({"log": {"backend": "syslog"}}, "log.backend: the log goes to stderr"),
        (
            {"backends": ["./backends/datadog"]},
            "backends: ./backends/datadog: graphite, console and repeater are known",
        ),
        ({"servers": [{"server": "./servers/x"}]}, "servers[0].server: ./servers/x: only udp and tcp are known here"),
        ({"server": "./servers/tcp", "socket": "s"}, "address: unix://s needs an absolute path"),
        ({"graphiteHost": "me@g"}, "graphiteHost: destination 'graphite://g:2003': takes no user name"),
        ({"flushInterval": 1500}, "flushInterval: stamps are whole seconds, so intervals are, too: 1.5 s became 2 s"),
        ({"flushInterval": 100}, "flushInterval: stamps are whole seconds, so intervals are, too: 0.1 s became 1 s"),
        ({"repeater": [{"host": "b", "port": 1}]}, "repeater: its backend is not among backends"),
        ({"mgmt_address": "0.0.0.0"}, "mgmt_address: from other machines, commands that change something are refused"),
        ({"percentThreshold": [0, 5]}, "percentThreshold: 0 cannot be made a percentage from -100 to 100, and not 0"),
        (
            {"percentThreshold": [90, "x"]},
            'percentThreshold: "x" cannot be made a percentage from -100 to 100, and not 0',
        ),
        ({"histogram": [{"bins": [1, 1]}]}, "histogram: entry 0: 1 is not a number above the bound before it"),
        ({"histogram": [7]}, "histogram: entry 0 is not a metric with bins: 7"),
        ({"histogram": {}}, "histogram: {} is not a list"),
        ({"calculatedTimerMetrics": "count"}, 'calculatedTimerMetrics: "count" is not a list, so statsd ignores it'),
        ({"flushInterval": 2**31}, "flushInterval: 2147483648 cannot be made a whole number from 1 to 2^30"),
        ({"keyFlush": {"interval": 2**31}}, "keyFlush.interval: 2147483648 cannot be made a number of seconds"),
        ({"keyFlush": {"percent": 101}}, "keyFlush.percent: 101 cannot be made a percentage above 0"),
        ({"port": "udp"}, 'port: "udp" is not a port'),
        ({"port": [8125]}, "port: [8125] is not a port"),
        ({"address": True}, "port: true is not a host name"),
        ({"servers": [{}, None]}, "servers[1]: null is not a server"),
        ({"servers": {"0": {}}}, "servers: { 0: {} } is not a list, so statsd starts none"),
        ({"servers": [{"port": 65536}, {}]}, "servers[0].port: 65536 is not a port"),
        ({"server": "./servers/tcp", "socket": "/s", "socket_mod": "rw"}, 'socket_mod: "rw" is not a file mode'),
        ({"mgmt_port": "admin", "mgmt_address": "::1"}, 'mgmt_address, mgmt_port: "::1", "admin" cannot be made HOST'),
        ({"graphiteHost": 7}, "graphiteHost: 7 cannot be made a list of URLs"),
        ({"backends": "./backends/graphite"}, 'backends: "./backends/graphite" is not a list, so statsd loads none'),
        (
            {"repeater": [{"host": "b"}, {"host": "b", "port": 1}], "backends": ["./backends/repeater"]},
            'repeater: { host: "b" } has no host and port',
        ),
        ({"prefixStats": None}, "prefixStats: null cannot be made letters, digits"),
        ({"automaticConfigReload": "0"}, "automaticConfigReload: the file may be half-written"),
        (
            {"keyNameSanitize": None},
            "keyNameSanitize: names are always sanitised; with `false`, statsd sends tags unchanged",
        ),
        ({"graphite": {"globalSuffix": ""}}, "graphite.globalSuffix: if it is empty, statsd adds a dot to every name"),
        (
            {"graphite": {"legacyNamespace": False, "prefixSet": None}},
            "graphite.prefixSet: null makes an empty part of the path",
        ),
        ({"prefixStats": ""}, "prefixStats: must not be empty"),
        (
            {"repeater": [{"host": "127.0.0.1", "port": 8125}], "backends": ["./backends/repeater"]},
            "repeater, backends: 'udp://127.0.0.1:8125' is an address of this forwarder",
        ),
        ({"graphite": {"globalPrefix": "a b"}}, 'graphite.globalPrefix: "a b" cannot be made letters, digits'),
        ({"graphite": "x"}, "graphite: statsd itself has no such option"),
        ({"mongoHost": "m"}, "mongoHost: statsd itself has no such option"),
        ({"a\n[x]": 1}, "a\\n[x]: statsd itself has no such option"),
    ],
)
def test_what_cannot_be_taken_over_is_named(options: dict[str, Any], line: str):
    """Each with its reason, on a line of its own, which the configuration has as a comment."""
    (found,) = left_out(options)
    assert found.startswith(line)
    assert f"\n# {found}\n" in converted(options).toml


def test_sockets_with_several_modes():
    """There is one for all of them here: that of the first."""
    tcp = {"server": "./servers/tcp", "socket": "/a", "socket_mod": "0600"}
    options = {"servers": [tcp, {**tcp, "socket": "/b", "socket_mod": "0666"}]}
    assert settings(options) == {"listen": ["unix:///a", "unix:///b"], "socket_mode": "0600"}
    assert left_out(options) == [
        "servers[1].socket_mod: all Unix sockets have one mode, 0600 of the first; not 0666",
    ]


def test_each_setting_says_where_it_comes_from():
    """A comment names the options, or says that the value is statsd's default."""
    lines = converted({"graphiteHost": "g", "graphitePort": 2013}).toml.splitlines()
    assert 'to = ["graphite://g:2013"]  # graphiteHost, graphitePort' in lines
    assert "expire = 0  # the default of statsd" in lines
    assert lines[0] == "# Converted from config.js by: forwarder --from-statsd"


NAMES = [option.name for option in STATSD if "." not in option.name]
TABLES = {option.name.partition(".")[0] for option in STATSD if "." in option.name}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.sampled_from(["./backends/graphite", "./backends/repeater", "./servers/tcp", "tcp", "pickle", "inf", "0600"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["host", "port", "metric", "bins", "server", "socket"]), inner)
    ),
    max_leaves=8,
)
TABLE = st.dictionaries(st.sampled_from([o.name.partition(".")[2] for o in STATSD if "." in o.name]), VALUES)


@hypothesis_settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(NAMES) | st.text(), VALUES, max_size=8),
    st.dictionaries(st.sampled_from(sorted(TABLES)), TABLE),
)
def test_whatever_stands_there_the_result_is_valid(options: dict[str, Any], tables: dict[str, Any]):
    """No value of any option makes anything but a valid configuration and reasons."""
    given_options = {**options, **tables}
    conversion = convert(json.dumps(given_options, ensure_ascii=False), "config.js")
    settle(of_file(conversion.toml, "converted"))
    for line in conversion.left_out:
        assert f"\n# {line}\n".encode(errors="replace").decode() in conversion.toml


# -- the file


@pytest.mark.parametrize("text", ["[]", "1", "'x'"])
def test_what_is_no_object_is_refused(text: str):
    """The file is named."""
    with pytest.raises(ConfigError, match=r"config\.js: is not an object"):
        convert(text, "config.js")


def test_a_configuration_of_the_proxy_is_refused():
    """proxy.js has nodes, stats.js does not."""
    with pytest.raises(ConfigError, match=r"config\.js: has nodes, so it is a configuration of statsd's proxy\.js"):
        convert(
            "{nodes: [{host: '127.0.0.1', port: 8127, adminport: 8128}], udp_version: 'udp4', port: 8125}", "config.js"
        )


def test_the_example_of_the_proxy_is_refused(need: Callable[..., None]):
    """exampleProxyConfig.js itself."""
    need(STATSD_PACKAGE)
    with pytest.raises(ConfigError, match=r"proxy\.js"):
        convert(source("exampleProxyConfig.js"), "config.js")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("entry", ["1", "{}", "'./backends/graphite'", "[]", "{port: 1, bins: [1]}"])
@pytest.mark.parametrize("option", ["percentThreshold", "servers", "backends", "repeater", "histogram", "unknown"])
def test_long_lists_take_no_time_that_grows_with_their_square(option: str, entry: str):
    """As many entries as may be read are taken over, or named, at once."""
    convert(f"{{ backends: ['repeater'], {option}: [{','.join([entry] * 2400)}] }}", "config.js")


def test_a_hundred_thousand_entries_are_refused():
    """Nobody has so many; it is a mistake."""
    with pytest.raises(ConfigError, match=r"config\.js: has more than 10,000 values"):
        convert(f"{{ percentThreshold: [{','.join(['90'] * 100_000)}] }}", "config.js")


@pytest.mark.parametrize("option", ["port", "flushInterval", "percentThreshold", "gaugesMaxTTL", "graphitePort"])
@pytest.mark.parametrize("digits", ["0x" + "f" * 100_000, "9" * 100_000, "'0x" + "f" * 100_000 + "'"])
def test_huge_numbers_are_infinite(option: str, digits: str):
    """As in JavaScript; the configuration is valid without them."""
    conversion = convert(f"{{ {option}: {digits} }}", "config.js")
    settle(of_file(conversion.toml, "converted"))
    assert len(conversion.toml) < 2000


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """TOML on stdout, what could not be taken over on stderr, and 0; the forwarder takes it as it is."""
    file = tmp_path / "config.js"
    file.write_text("// ours\n({ graphiteHost: 'g', dumpMessages: true, })\n")
    assert main(["--from-statsd", str(file)]) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines()[1].startswith("not converted: dumpMessages: ")
    (tmp_path / "f.toml").write_text(shown.out)
    assert main(["--config", str(tmp_path / "f.toml"), "--check-config"]) == 0
    assert '\nto = ["graphite://g:2003"]\n' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "cannot be read"),
        (b"\xff", "is not in UTF-8"),
        (b"{a: b()}", "line 1, column 5"),
        (b"", "ends too early"),
    ],
)
def test_a_file_that_cannot_be_read(content, error, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One line on stderr names it and says why; the exit code is 2, and nothing is printed."""
    file = tmp_path / "config.js"
    if content is not None:
        file.write_bytes(content)
    assert main(["--from-statsd", str(file)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"forwarder: {file}: {error}")
    assert shown.err.count("\n") == 1
