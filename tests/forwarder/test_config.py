"""Configuration: what wins over what, what is refused and with which words, and what is shown."""

import dataclasses
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.config import OPTIONS, Config, ConfigError, masked, of_environment, of_file, of_flags, settle
from metricslib.naming import Naming


def refusal(call, *arguments):
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return str(caught.value)


# -- where a value comes from


def test_defaults_are_statsd_on_loopback():
    """With nothing configured, the forwarder listens where statsd clients send by default, on loopback alone."""
    config = settle()
    assert config == Config()
    assert config.listen == ("udp://127.0.0.1:8125", "tcp://127.0.0.1:8125")
    assert (config.to, config.interval, config.page) == ((), 10, ("127.0.0.1", 8127))
    assert config.naming == Naming(percentiles=(90,), own="statsd")


def test_flag_wins_over_environment_over_file_over_default():
    """Of all sources that have an option, the nearest to the command line decides; the others keep theirs."""
    flags = of_flags({"interval": "1", "prefix": None, "to": None})
    environ = of_environment({"FORWARDER_INTERVAL": "2", "FORWARDER_PREFIX": "env", "HOME": "/root"})
    file = of_file('interval = 3\nprefix = "file"\nto = "graphite://db"\n', "f.toml")
    config = settle(flags, environ, file)
    assert (config.interval, config.naming.prefix, config.to) == (1, "env", ("graphite://db",))
    assert (settle(environ, file).interval, settle(file).interval, settle().interval) == (2, 3, 10)


def test_lists_replace_and_do_not_add():
    """A list in a nearer source stands for the whole list, so that a default listener can be left out."""
    file = of_file('listen = ["udp://127.0.0.1:1", "tcp://127.0.0.1:2"]', "f.toml")
    assert settle(of_flags({"listen": ["udp://[::1]:8125"]}), file).listen == ("udp://[::1]:8125",)


def test_every_option_can_be_given_in_each_way_it_has():
    """Each option is known to the file and to the environment, and means the same there."""
    texts = {
        "listen": ("udp://h:1, tcp://h:2", ("udp://h:1", "tcp://h:2")),
        "to": (
            "whisper:///w?retentions=10s:1d,1m:30d,graphite://h",
            ("whisper:///w?retentions=10s:1d,1m:30d", "graphite://h"),
        ),
        "interval": ("5", 5),
        "prefix": ("shop.{host}", "shop.{host}"),
        "percentiles": ("90, 99.9,-10", (90, 99.9, -10)),
        "http": ("[::1]:0", "[::1]:0"),
        "http_hosts": ("m.lan, metrics.example", ("m.lan", "metrics.example")),
        "console": ("[::1]:0", "[::1]:0"),
        "console_admin": ("on", True),
        "health": ("DOWN", "down"),
        "repeat": ("udp://h:1,tcp://i", ("udp://h:1", "tcp://i")),
        "own_prefix": ("fw", "fw"),
        "own_account": ("off", False),
        "delete_idle": ("counters, gauges", ("counters", "gauges")),
        "gauges_ttl": ("3", 3),
        "max_series": ("5", 5),
        "max_tag_sets": ("6", 6),
        "max_bytes": ("64MB", 64_000_000),
        "expire": ("0.5", 0.5),
        "socket_mode": ("660", 0o660),
        "socket_group": ("statsd", "statsd"),
        "receive_buffer": ("1e6", 1_000_000),
        "udp_threads": ("4", 4),
        "stop_timeout": ("0", 0),
        "log_level": ("DEBUG", "debug"),
        "naming.legacy": ("yes", True),
        "naming.flush_counts": ("0", False),
        "naming.calculated": ("count upper_90", ("count", "upper_90")),
        "key_flush.interval": ("0.5", 0.5),
        "key_flush.percent": ("12.5", 12.5),
        "boards": (None, (("Shop", "series=a%2Cb%3Ap90&warn=1.5&crit=20%2C4&title=Shop&night=1"),)),
        "naming.bins": (None, (("web", (1, 2.5, float("inf"))),)),
    }
    for name in OPTIONS:
        text, expected = texts.get(name, ("x.y", "x.y"))
        if text is not None:
            variable = "FORWARDER_" + name.upper().replace(".", "_")
            assert settle(of_environment({variable: text})).values()[name] == expected
        assert settle(of_file(_line(name, expected), "f")).values()[name] == expected


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1e6", 10**6), ("64MiB", 64 << 20), ("1gb", 10**9), ("5B", 5)])
def test_a_number_of_bytes_may_have_a_unit(text, size):
    """On the command line, in the environment and, in quotes, in the file."""
    assert settle(of_flags({"max_bytes": text})).max_bytes == size
    assert settle(of_environment({"FORWARDER_MAX_BYTES": text})).max_bytes == size
    if not text[-1].isdigit():
        assert settle(of_file(f'max_bytes = "{text}"', "f")).max_bytes == size


def _line(name, value):
    table, _, key = name.rpartition(".")
    board = '[{title = "Shop", series = ["a", "b:p90"], warn = 1.5, crit = [20, 4], night = true}]'
    bins = '[{match = "web", bounds = [1, 2.5, inf]}]'
    shown = {"socket_mode": '"0660"', "boards": board, "naming.bins": bins}.get(name)
    if shown is None:
        shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else None
    if shown is None:
        shown = str(list(value)) if isinstance(value, tuple) else repr(value)
    return f"[{table}]\n{key} = {shown}" if table else f"{key} = {shown}"


def test_own_series_are_left_without_prefix():
    """The forwarder's own metrics keep statsd's names whatever the prefix is, and can be renamed."""
    config = settle(of_file('prefix = "shop"\nown_prefix = "fw"', "f"))
    assert (config.naming.prefix, config.naming.own) == ("shop", "fw")


def test_an_empty_variable_counts_as_not_set():
    """``FORWARDER_INTERVAL=`` is how a container file unsets something."""
    assert of_environment({"FORWARDER_INTERVAL": ""}) == {}


def test_variables_of_kubernetes_are_none_of_ours():
    """A Service called "forwarder" puts such variables into every container; they are no mistakes."""
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_STATSD", "PORT", "PORT_8125_UDP", "PORT_8125_TCP_ADDR")
    assert of_environment({f"FORWARDER_{name}": "tcp://10.0.0.1:8125" for name in names}) == {}


# -- what is refused


BUFFER = "a number of bytes from 1 to 1 GiB, such as 67108864 or 64MiB"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("intervall = 5", "f.toml: unknown key intervall; did you mean interval?"),
        ("zebra = 5", "f.toml: unknown key zebra"),
        ("legacy = true", "f.toml: unknown key legacy; did you mean legacy in [naming]?"),
        ("[naming]\nlegasy = true", "f.toml: unknown key naming.legasy; did you mean legacy?"),
        ("[naming]\ninterval = 5", "f.toml: unknown key naming.interval; did you mean interval, outside [naming]?"),
        ("naming = 5", "f.toml: naming must be a table: [naming]"),
        ("interval = ", "f.toml: is not valid TOML: Invalid value (at end of document)"),
        ('interval = "5"', "f.toml: interval: '5' is not a whole number from 1 to 2^30"),
        ("interval = 0", "f.toml: interval: 0 is not a whole number from 1 to 2^30"),
        ("interval = 1.5", "f.toml: interval: 1.5 is not a whole number from 1 to 2^30"),
        ("interval = true", "f.toml: interval: true is not a whole number from 1 to 2^30"),
        ("interval = nan", "f.toml: interval: nan is not a whole number from 1 to 2^30"),
        ("interval = inf", "f.toml: interval: inf is not a whole number from 1 to 2^30"),
        ("expire = -1", "f.toml: expire: -1 is not a number of seconds from 0 to a billion"),
        ("interval = 1e10", "f.toml: interval: 10000000000.0 is not a whole number from 1 to 2^30"),
        ("max_series = 3000000000", "f.toml: max_series: 3000000000 is not a whole number from 1 to 2^30"),
        ("udp_threads = 257", "f.toml: udp_threads: 257 is not a whole number from 1 to 256"),
        ("expire = 1e10", "f.toml: expire: 10000000000.0 is not a number of seconds from 0 to a billion"),
        ("expire = nan", "f.toml: expire: nan is not a number of seconds from 0 to a billion"),
        (
            "stop_timeout = 1e12",
            "f.toml: stop_timeout: 1000000000000.0 is not a number of seconds from 0 to 86400, a day",
        ),
        (
            "[key_flush]\ninterval = -inf",
            "f.toml: key_flush.interval: -inf is not a number of seconds from 0 to a billion",
        ),
        ("interval = " + "9" * 5000, "f.toml: has a number of thousands of digits"),
        (
            "interval = 0x" + "f" * 5000,
            "f.toml: interval: a number of thousands of digits is not a whole number from 1 to 2^30",
        ),
        ("x = " + "[" * 3000, "f.toml: has more than 16 levels of nesting"),
        ("x = " + "{x=" * 3000, "f.toml: has more than 16 levels of nesting"),
        ("a" + ".a" * 50_000 + " = 1", "f.toml: has more than 16 levels of nesting"),
        ("[a" + '."a"' * 50_000 + "]", "f.toml: has more than 16 levels of nesting"),
        ("#" * 300_000, "f.toml: has more than 262144 bytes"),
        ("k" * 200_000 + " = 1", f"f.toml: unknown key {'k' * 200}…"),
        ("stop_timeout = inf", "f.toml: stop_timeout: inf is not a number of seconds from 0 to 86400, a day"),
        ("prefix = 5", "f.toml: prefix: 5 is not text"),
        ('prefix = "a.{user}"', "f.toml: prefix: 'a.{user}' {user} is unknown; known are {host}, {pid}"),
        ("percentiles = [90, 0]", "f.toml: percentiles: [90, 0] is not percents from -100 to 100, and not 0"),
        ("percentiles = [101]", "f.toml: percentiles: [101] is not percents from -100 to 100, and not 0"),
        ('percentiles = ["x"]', 'f.toml: percentiles: ["x"] is not percents from -100 to 100, and not 0'),
        ('percentiles = ["101"]', 'f.toml: percentiles: ["101"] is not percents from -100 to 100, and not 0'),
        ('percentiles = "90"', "f.toml: percentiles: '90' is not percents from -100 to 100, and not 0"),
        ("to = [5]", "f.toml: to: [5] is not a list of URLs"),
        ('to = [""]', 'f.toml: to: [""] is not a list of URLs'),
        ('listen = "upd://h"', "f.toml: listen: 'upd://h' has an unknown scheme; did you mean udp?"),
        ('repeat = "graphite://h"', "f.toml: repeat: 'graphite://h' is neither udp:// nor tcp://"),
        (
            'repeat = "udp://localhost:8125"\nlisten = "udp://0.0.0.0"',
            "f.toml: repeat: 'udp://localhost:8125' is an address of this forwarder",
        ),
        ('repeat = "tcp://127.0.0.1:8125"', "f.toml: repeat: 'tcp://127.0.0.1:8125' is an address of this forwarder"),
        ("key_flush = 5", "f.toml: key_flush must be a table: [key_flush]"),
        ("[key_flush]\npercent = 0", "f.toml: key_flush.percent: 0 is not a percentage above 0, at most 100"),
        ("[key_flush]\nintervall = 5", "f.toml: unknown key key_flush.intervall; did you mean interval?"),
        ("listen = 8125", "f.toml: listen: 8125 is not a list of URLs"),
        ('http = "8127"', "f.toml: http: '8127' is not HOST:PORT, with an IPv6 address in brackets, or off"),
        ('http = "::1:8127"', "f.toml: http: '::1:8127' is not HOST:PORT, with an IPv6 address in brackets, or off"),
        ('http = "h:65536"', "f.toml: http: 'h:65536' is not HOST:PORT, with an IPv6 address in brackets, or off"),
        ("receive_buffer = 1073741825", f"f.toml: receive_buffer: 1073741825 is not {BUFFER}"),
        ('receive_buffer = "2GiB"', f"f.toml: receive_buffer: '2GiB' is not {BUFFER}"),
        (
            'max_bytes = "64M"',
            f"f.toml: max_bytes: '64M' is not {BUFFER.replace('1 to 1 GiB', '0 to 2^50')}",
        ),
        ("socket_mode = 660", 'f.toml: socket_mode: 660 is not a file mode in octal, in quotes, such as "0660"'),
        ("socket_group = true", "f.toml: socket_group: true is not the name or the number of a group"),
        ('socket_group = "a b"', "f.toml: socket_group: 'a b' is not the name or the number of a group"),
        (
            'socket_mode = "0888"',
            "f.toml: socket_mode: '0888' is not a file mode in octal, in quotes, such as \"0660\"",
        ),
        ('log_level = "loud"', "f.toml: log_level: 'loud' is not one of debug, info, warning, error"),
        ('own_prefix = ""', "f.toml: own_prefix: must not be empty"),
        ('own_prefix = "a b"', "f.toml: own_prefix: 'a b' is not letters, digits, '_', '-' and inner dots"),
        ("[naming]\nlegacy = 1", "f.toml: naming.legacy: 1 is not true or false"),
        (
            '[naming]\nnamespace = "a;b"',
            "f.toml: naming.namespace: 'a;b' is not letters, digits, '_', '-' and inner dots",
        ),
        (
            '[naming]\nbins = [{ match = "x", bounds = [2, 1] }]',
            'f.toml: naming.bins: [{ match = "x", bounds = [2, 1] }] is not a list of tables such as'
            ' { match = "web", bounds = [10, 100, inf] }, bounds rising',
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named(toml, message):
    """File, key, value and what would be right stand in one line; a misspelt key comes with the nearest that exists."""
    assert refusal(lambda: settle(of_file(toml, "f.toml"))) == message


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        (
            "FORWARDER_INTERWAL",
            "5",
            "environment: unknown variable FORWARDER_INTERWAL; did you mean FORWARDER_INTERVAL?",
        ),
        ("FORWARDER_KONFIG", "x", "environment: unknown variable FORWARDER_KONFIG; did you mean FORWARDER_CONFIG?"),
        (
            "FORWARDER_LEGACY",
            "1",
            "environment: unknown variable FORWARDER_LEGACY; did you mean FORWARDER_NAMING_LEGACY?",
        ),
        ("FORWARDER_Q", "", "environment: unknown variable FORWARDER_Q"),
        ("FORWARDER_INTERVAL", "ten", "FORWARDER_INTERVAL: 'ten' is not a whole number from 1 to 2^30"),
        ("FORWARDER_INTERVAL", "1e999", "FORWARDER_INTERVAL: '1e999' is not a whole number from 1 to 2^30"),
        ("FORWARDER_NAMING_LEGACY", "maybe", "FORWARDER_NAMING_LEGACY: 'maybe' is not true or false"),
        (
            "FORWARDER_PERCENTILES",
            "90;99",
            "FORWARDER_PERCENTILES: '90;99' is not percents from -100 to 100, and not 0",
        ),
        ("FORWARDER_PREFIX", "{", "FORWARDER_PREFIX: '{' a brace stands alone; known are {host}, {pid}"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(variable, text, message):
    """The variable is named, for it may have been set far away."""
    assert refusal(lambda: settle(of_environment({variable: text}))) == message


def test_what_is_wrong_in_a_flag_is_named():
    """The flag is named as it is written."""
    assert (
        refusal(of_flags, {"stop_timeout": "x"})
        == "--stop-timeout: 'x' is not a number of seconds from 0 to 86400, a day"
    )


def test_an_error_carries_what_was_wrong():
    """Source, key and reason are attributes, for whoever shows them otherwise."""
    with pytest.raises(ConfigError) as caught:
        of_file("intervall = 5", "f.toml")
    error = caught.value
    assert (error.source, error.key) == ("f.toml", "intervall")
    assert error.reason == "unknown key intervall; did you mean interval?"


# -- what is shown


def test_what_is_shown_can_be_read_again():
    """The effective configuration as TOML is a configuration file that gives the same."""
    config = settle(
        of_file(
            'to = ["graphite://h:1", "statsd://h"]\nprefix = "a\\"b\\u007f"\n'
            'percentiles = [50, 99.9]\nsocket_mode = "0600"\n'
            '[naming]\nlegacy = true\ncalculated = ["count"]\nbins = [{ match = "x", bounds = [1, inf] }]\n',
            "f",
        )
    )
    assert settle(of_file(config.as_toml(), "again")) == config
    assert settle(of_file(Config().as_toml(), "again")) == Config()
    spelled = 'percentiles = [90, "90.0"]'
    assert spelled in settle(of_file(spelled, "f")).as_toml()


@given(st.text(), st.lists(st.floats(0.01, 100), min_size=1, unique=True), st.integers(1, 10**9), st.floats(0, 1e9))
def test_any_value_can_be_read_again(prefix, percentiles, interval, expire):
    """No text and no number is shown in a way that TOML reads otherwise."""
    config = dataclasses.replace(
        Config(), naming=Naming(prefix=prefix, percentiles=tuple(percentiles)), interval=interval, expire=expire
    )
    document = tomllib.loads(config.as_toml())
    assert (document["prefix"], document["percentiles"]) == (prefix, percentiles)
    assert (document["interval"], document["expire"]) == (interval, expire)


@pytest.mark.parametrize("option", ["listen", "repeat", "http", "console", "to"])
@pytest.mark.parametrize(
    "value",
    [
        "x://me:s3cret@h:1",
        "udp://me:s3/s3cret@h:1",
        "udp://h:s3cret",
        "h:s3cret",
        "me:s3cret@h:1",
        "udp://h?token=s3cret",
    ],
)
@pytest.mark.parametrize("source", ["flag", "environment", "file", "file, in a list"])
def test_no_secret_is_in_an_error(option, value, source):
    """Wherever it was given, and whatever is wrong with it."""
    text = f'{option} = ["{value}", 5]' if source.endswith("list") else f'{option} = "{value}"'
    try:
        if source == "flag":
            shown = settle(of_flags({option: value if option in ("http", "console") else [value]})).as_toml()
        elif source == "environment":
            shown = settle(of_environment({f"FORWARDER_{option.upper()}": value})).as_toml()
        else:
            shown = settle(of_file(text, "f")).as_toml()
    except ConfigError as error:
        shown = str(error)
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("graphite://db:2003", "graphite://db:2003"),
        ("graphite://me:pw@db:2003/x", "graphite://***@db:2003/x"),
        ("graphite://me:p@w@db", "graphite://***@db"),
        ("graphite://db?timeout=5&token=abc&x=1", "graphite://db?timeout=5&token=***&x=1"),
        ("x://db?API_KEY=abc", "x://db?API_KEY=***"),
        ("graphite://me:p/w@db", "graphite://***@db"),
        ("graphite://me:p?w@db", "graphite://***@db"),
        ("graphite://db:s3cret", "graphite://db:***"),
        ("graphite://db:s3/cr,et?timeout=5", "graphite://db:***?timeout=5"),
        ("graphite://a:2003:x,b:2003:y?hash=carbon_ch", "graphite://a:2003:x,b:2003:y?hash=carbon_ch"),
        ("graphite://[::1]:2003", "graphite://[::1]:2003"),
        ("file:///var/a@b.jsonl", "file:///var/a@b.jsonl"),
        ("file:a@b:c.jsonl", "file:a@b:c.jsonl"),
        ("console:", "console:"),
        ("udp:127.0.0.1:8125", "udp:127.0.0.1:8125"),
        ("udp:h:s3cret", "udp:h:***"),
        ("me:s3cret", "me:***"),
    ],
)
def test_secrets_are_masked(url: str, shown: str):
    """Users, passwords and tokens never reach a terminal or a log."""
    assert masked(url) == shown
    assert settle(of_flags({"to": [url]})).as_toml().count(f'"{shown}"') == 1
