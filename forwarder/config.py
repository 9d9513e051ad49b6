"""The forwarder's configuration: merges flags, environment variables and a TOML file into one frozen :class:`Config`.

The input is the parsed command line, the environment, and the text of a file; this module reads nothing itself. The
output is a :class:`Config`, or a :class:`ConfigError` that names the source and the key. A flag overrides the
environment, the environment overrides the file, and the file overrides the default. The option ``stop_timeout`` is the
flag ``--stop-timeout`` (if it has one), the environment variable ``FORWARDER_STOP_TIMEOUT`` and the key
``stop_timeout`` in the file; options in a table such as ``[naming]`` are ``FORWARDER_NAMING_…``. An unknown key is an
error, because it is usually a misspelt one that would silently have no effect.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from metricslib.delivery.urls import without_bad_port
from metricslib.errors import MetricsError
from metricslib.naming import Naming, expanded
from metricslib.series import Kind as SeriesKind

from . import addresses, config_file, options
from .addresses import host_and_port
from .options import Kind, toml

__all__ = [
    "OPTIONS",
    "Config",
    "ConfigError",
    "KeyFlush",
    "Option",
    "Setting",
    "masked",
    "masked_text",
    "nearest",
    "of_environment",
    "of_file",
    "of_flags",
    "settle",
]

ENVIRONMENT = "FORWARDER_"
_SHOWN = 200
"""Maximum number of characters of a wrong value in an error message."""
CONFIG = "FORWARDER_CONFIG"
"""The variable that names the configuration file. It is not an option."""

# Kubernetes sets these variables in every container if there is a Service called "forwarder".
_KUBERNETES = re.compile(r"FORWARDER_(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP)\w*)?)")
_SECRET = re.compile(r"([?&](?:[^=&]*(?:token|secret|password|key)[^=&]*)=)[^&#]*", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^\s'\"]*@")
_NO_HOST = ("file", "whisper", "console")


class ConfigError(MetricsError, ValueError):
    """An invalid configuration. ``source`` is the file, flag or variable, ``key`` the option in it."""

    def __init__(self, source: str, key: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.key = key
        self.reason = reason


@dataclass(frozen=True, slots=True)
class KeyFlush:
    """Whether and how the busiest keys are reported."""

    interval: float = 0
    """Seconds between two reports; 0 turns counting off."""
    percent: float = 100
    """Percentage of the keys that a report contains."""
    log: str = ""
    """File to which reports are appended; empty: the log."""


@dataclass(frozen=True, slots=True)
class Config:
    """All options of the forwarder. Durations are in seconds, sizes in bytes."""

    listen: tuple[str, ...] = ("udp://127.0.0.1:8125", "tcp://127.0.0.1:8125")
    to: tuple[str, ...] = ()
    interval: int = 10
    naming: Naming = field(default_factory=lambda: Naming(own="statsd"))
    """Includes prefix and percentiles. Series under ``own_prefix`` get no prefix."""
    own_prefix: str = "statsd"
    http: str = "127.0.0.1:8127"
    http_hosts: tuple[str, ...] = ()
    """Host names that the page accepts on loopback, in addition to ``localhost``."""
    boards: tuple[tuple[str, str], ...] = ()
    """The boards of the page: title and query string of each."""
    console: str = "127.0.0.1:8126"
    console_admin: bool = False
    """Whether the console accepts commands that change something on addresses other than loopback."""
    health: Literal["up", "down"] = "up"
    """Health at the start."""
    spool: str = ""
    """Directory for undelivered data; empty: it waits in memory."""
    repeat: tuple[str, ...] = ()
    key_flush: KeyFlush = KeyFlush()
    max_series: int = 1_000_000
    max_tag_sets: int = 10_000
    max_bytes: int = 0
    """Maximum bytes of series, cached keys and set members; 0: :func:`metricslib.budget.default_max_bytes`."""
    expire: float = 86_400
    """Seconds after which an idle series is removed; 0: never."""
    delete_idle: tuple[str, ...] = ()
    """Kinds of series that are not sent while idle."""
    gauges_ttl: int = 1
    """Number of intervals for which a gauge is sent after it was set, if ``delete_idle`` has gauges."""
    own_account: bool = True
    """Whether to send own metrics that statsd does not have."""
    socket_mode: int = 0o600
    socket_group: str = ""
    """Group of the files of Unix sockets; empty: the group of the process."""
    receive_buffer: int = 64 << 20
    udp_threads: int = 1
    """Number of threads for each UDP address, each with its own socket."""
    stop_timeout: float = 10
    log_level: str = "info"

    @property
    def page(self) -> tuple[str, int] | None:
        """Host and port of the page; None if it is off."""
        return None if self.http == "off" else host_and_port(self.http)

    @property
    def management(self) -> tuple[str, int] | None:
        """Host and port of the management console; None if it is off."""
        return None if self.console == "off" else host_and_port(self.console)

    @property
    def stay(self) -> Mapping[SeriesKind, int]:
        """For each kind in ``delete_idle``, the number of intervals for which a series is sent after its last value."""
        return {options.SERIES[name]: self.gauges_ttl if name == "gauges" else 1 for name in self.delete_idle}

    def values(self) -> dict[str, Any]:
        """Return the value of every option, by its name."""
        found = {}
        for name in OPTIONS:
            section = _section(name)
            found[name] = getattr(getattr(self, section) if section else self, name.rpartition(".")[2])
        return found

    def shown(self) -> dict[str, Any]:
        """Return the content of a file with this configuration: plain values, tables last, secrets in URLs masked."""
        shown: dict[str, Any] = {}
        for name, value in self.values().items():
            table, _, key = name.rpartition(".")
            kind = OPTIONS[name].kind
            place = shown.setdefault(table, {}) if table else shown
            place[key] = kind.raw(tuple(map(masked, value)) if kind is options.URLS else value)
        return shown

    def as_toml(self) -> str:
        """Return the configuration as TOML, which parses to the same one except for masked secrets in URLs."""
        lines: list[str] = []
        for key, value in self.shown().items():
            if key in _TABLES:
                lines += ["", f"[{key}]", *(f"{inner} = {toml(item)}" for inner, item in value.items())]
            else:
                lines.append(f"{key} = {toml(value)}")
        return "\n".join([*lines, ""])


class Option(NamedTuple):
    """One option. It is also a flag if it has a ``metavar``."""

    kind: Kind
    help: str
    metavar: str = ""


OPTIONS: Mapping[str, Option] = {
    "listen": Option(
        options.URLS,
        "address to listen on: udp://, tcp://, unix://, unixgram://, graphite://, forwarder+tcp://"
        " or forwarder+unix://; may be repeated",
        "URL",
    ),
    "to": Option(options.URLS, "destination: graphite://, statsd://, whisper://, file://, …; may be repeated", "URL"),
    "interval": Option(options.COUNT, "length of an interval in whole seconds", "S"),
    "prefix": Option(options.TEXT, "prefix of every name; may contain {host} and {pid}", "P"),
    "percentiles": Option(options.PERCENTS, "percentiles of timers and histograms", "90,99"),
    "http": Option(options.ADDRESS, "address of the metrics page, or off", "HOST:PORT"),
    "http_hosts": Option(options.WORDS, "host names that the page accepts on loopback, in addition to localhost"),
    "boards": Option(options.BOARDS, "boards for a wall that the page links to"),
    "console": Option(options.ADDRESS, "address of the management console, or off", "HOST:PORT"),
    "console_admin": Option(
        options.SWITCH, "allow commands that change something, although other hosts can reach the console"
    ),
    "health": Option(options.HEALTH, "health at the start: up or down"),
    "spool": Option(options.TEXT, "directory in which undelivered data survives restarts and crashes", "DIR"),
    "repeat": Option(
        options.URLS, "statsd server that receives a copy of every packet: udp:// or tcp://; may be repeated", "URL"
    ),
    "own_prefix": Option(options.NAME, "name of the forwarder's own metrics"),
    "max_series": Option(options.COUNT, "maximum number of series"),
    "max_tag_sets": Option(options.COUNT, "maximum number of tag sets per name"),
    "max_bytes": Option(
        options.MEMORY, "maximum bytes of series, cached keys and members of sets; 0: a quarter of the memory", "BYTES"
    ),
    "own_account": Option(
        options.SWITCH, "send more metrics of itself than statsd does: the account, and those of the delivery"
    ),
    "delete_idle": Option(options.SERIES_KINDS, "kinds that are not sent while idle: counters, timers, gauges, …"),
    "gauges_ttl": Option(
        options.COUNT, "with gauges in delete_idle: number of intervals for which an idle gauge is still sent"
    ),
    "expire": Option(options.DURATION, "seconds after which an idle series is removed; 0: never"),
    "socket_mode": Option(options.MODE, "file mode of Unix sockets"),
    "socket_group": Option(options.GROUP, "group of Unix sockets, by name or number; empty: the group of the process"),
    "receive_buffer": Option(options.SIZE, "requested bytes of the kernel's receive buffer for each UDP socket"),
    "udp_threads": Option(options.THREADS, "number of threads for each UDP address, each with its own socket"),
    "stop_timeout": Option(options.STOP, "seconds to deliver the remaining data when the forwarder stops", "S"),
    "log_level": Option(options.LEVEL, "least important level to log", "LEVEL"),
    "naming.legacy": Option(options.SWITCH, "statsd's legacy namespace: stats.K, stats_counts.K, stats.timers.K.x"),
    "naming.namespace": Option(options.NAME, "the first part of every path"),
    "naming.counters": Option(options.NAME, "the part for counters"),
    "naming.timers": Option(options.NAME, "the part for timers"),
    "naming.histograms": Option(options.NAME, "the part for histograms"),
    "naming.gauges": Option(options.NAME, "the part for gauges"),
    "naming.sets": Option(options.NAME, "the part for sets"),
    "naming.suffix": Option(options.NAME, "suffix of every name"),
    "naming.flush_counts": Option(options.SWITCH, "send the counts of counters, not only their rates"),
    "naming.calculated": Option(options.WORDS, "statistics of timers to send; empty: all"),
    "naming.bins": Option(options.BINS, "bins of timers and histograms whose series contains a given text"),
    "key_flush.interval": Option(options.DURATION, "seconds between reports of the busiest keys; 0: no reports"),
    "key_flush.percent": Option(options.PERCENT, "percentage of the keys in a report"),
    "key_flush.log": Option(options.TEXT, "file to which reports are appended; empty: the log"),
}
_TABLES = tuple(dict.fromkeys(name.partition(".")[0] for name in OPTIONS if "." in name))


def _section(name: str) -> str:
    """Return the name of the part of :class:`Config` that holds the option; empty for the configuration itself."""
    return "naming" if name in ("prefix", "percentiles") else name.rpartition(".")[0]


class Setting(NamedTuple):
    """A checked value, and its origin: a flag, a variable, or a file and key."""

    value: Any
    origin: str


Settings = Mapping[str, Setting]


def of_flags(flags: Mapping[str, str | list[str] | None]) -> Settings:
    """Return the settings in parsed flags; the value None means that a flag was not given."""
    return {
        name: _setting(
            name, f"--{name.replace('_', '-')}", given, OPTIONS[name].kind.of_text if isinstance(given, str) else None
        )
        for name, given in flags.items()
        if given is not None
    }


def of_environment(environ: Mapping[str, str]) -> Settings:
    """Return the settings in variables that start with ``FORWARDER_``. An empty variable counts as unset."""
    known = {ENVIRONMENT + name.replace(".", "_").upper(): name for name in OPTIONS}
    settings = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT) or variable == CONFIG or _KUBERNETES.fullmatch(variable):
            continue
        if variable not in known:
            hints = {full.removeprefix(ENVIRONMENT): full for full in (*known, CONFIG)}
            hint = nearest(variable.removeprefix(ENVIRONMENT), hints)
            raise ConfigError("environment", variable, f"unknown variable {variable}{hint}")
        if text:
            name = known[variable]
            settings[name] = _setting(name, variable, text, OPTIONS[name].kind.of_text)
    return settings


def of_file(text: str, file: str) -> Settings:
    """Return the settings in TOML ``text``; ``file`` names it in errors."""
    try:
        document = config_file.parse(text)
    except config_file.TooMuch as error:
        raise ConfigError(file, "", str(error)) from error
    except ValueError as error:
        raise ConfigError(file, "", f"is not valid TOML: {_short(str(error))}") from error
    given = {}
    for name in _TABLES:
        table = document.pop(name, {})
        if not isinstance(table, dict):
            raise ConfigError(file, name, f"{name} must be a table: [{name}]")
        given.update({f"{name}.{key}": value for key, value in table.items()})
    given = {**document, **given}
    for name in given:
        if name not in OPTIONS:
            where, _, key = name.rpartition(".")
            raise ConfigError(file, name, f"unknown key {_short(name)}{nearest(key, _hints(where))}")
    return {name: _setting(name, f"{file}: {name}", value, None) for name, value in given.items()}


def settle(*sources: Settings) -> Config:
    """Return the configuration. If several sources have an option, the first one decides."""
    settings: dict[str, Setting] = {}
    for source in reversed(sources):
        settings.update(source)
    values = {name: setting.value for name, setting in settings.items()}
    for name in _CHECKS:
        if name in settings:
            _check(name, settings[name])

    _check_repeat(values, settings)

    def part(section: str) -> dict[str, Any]:
        return {name.rpartition(".")[2]: values.pop(name) for name in list(values) if _section(name) == section}

    own = values.get("own_prefix", Config().own_prefix)
    naming = Naming(own=own, **part("naming"))
    return Config(naming=naming, key_flush=KeyFlush(**part("key_flush")), **values)


def masked(url: str) -> str:
    """Return ``url``, or ``HOST:PORT``, with user, password and tokens masked, for the log.

    A port that is not a number is masked too, because it may be a password.
    """
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        scheme, slashes, rest = url.partition(":") if url.partition(":")[0] in addresses.PORTS else ("", "", url)
    if rest.startswith("/") or url.partition(":")[0].lower() in _NO_HOST:
        return _SECRET.sub(r"\1***", url)
    _, at, rest = rest.rpartition("@")
    hosts, question, query = rest.partition("?")
    query = _SECRET.sub(r"\1***", question + query)
    return f"{scheme}{slashes}{'***@' if at else ''}{without_bad_port(hosts, '***')}{query}"


def masked_text(text: str) -> str:
    """Return ``text`` with users, passwords and tokens masked in all URLs."""
    return _SECRET.sub(r"\1***", _USER.sub("***@", text))


def _setting(name: str, origin: str, given: object, of_text: Any) -> Setting:
    kind = OPTIONS[name].kind
    try:
        value = kind.check(of_text(given) if of_text else given)
    except (ValueError, OverflowError):
        raise ConfigError(origin, name, f"{_shown(kind, given)} is not {kind.expected}") from None
    if name == "own_prefix" and not value:
        raise ConfigError(origin, name, "must not be empty")
    return Setting(value, origin)


_CHECKS: Mapping[str, Callable[[str], object]] = {
    "listen": addresses.parse,
    "prefix": expanded,
    "repeat": addresses.parse_target,
}


def _check(name: str, setting: Setting) -> None:
    """Refuse values of the right kind that are invalid nevertheless."""
    for value in (setting.value,) if isinstance(setting.value, str) else setting.value:
        try:
            _CHECKS[name](value)
        except ValueError as error:
            raise ConfigError(
                setting.origin, name, f"{_shown(OPTIONS[name].kind, value)} {getattr(error, 'reason', error)}"
            ) from None


def _check_repeat(values: Mapping[str, Any], settings: Mapping[str, Setting]) -> None:
    """Refuse a target that is a listener of this forwarder: every packet would be repeated without end."""
    for url in values.get("repeat", ()):
        target = addresses.parse_target(url)
        for listener in map(addresses.parse, values.get("listen", Config().listen)):
            if target.reaches(listener):
                raise ConfigError(
                    settings["repeat"].origin, "repeat", f"{masked(url)!r} is an address of this forwarder"
                )


def _shown(kind: Kind, value: object) -> str:
    """Return a refused value for an error message: without secrets, and shortened."""
    mask = masked if kind in (options.URLS, options.ADDRESS) else masked_text
    if isinstance(value, str):
        return _short(repr(mask(value)))
    if isinstance(value, list | tuple):
        value = [mask(item) if isinstance(item, str) else item for item in value]
    try:
        return _short(masked_text(toml(value)))
    except ValueError:  # Python does not convert integers with so many digits to text
        return "a number of thousands of digits"


def _short(text: str) -> str:
    """Return ``text``, shortened and escaped, for a message of one line."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def nearest(word: str, hints: Mapping[str, str]) -> str:
    """Return the hint for the word most similar to ``word``, as the end of a message; empty if there is none."""
    near = difflib.get_close_matches(word[:_SHOWN], hints, 1)
    return f"; did you mean {hints[near[0]]}?" if near else ""


def _hints(table: str) -> Mapping[str, str]:
    """Return the hint for each key that may be meant in ``table``, including keys that belong in other tables."""
    hints: dict[str, str] = {}
    for name in sorted(OPTIONS, key=lambda name: name.rpartition(".")[0] != table):  # keys of this table come first
        section, _, key = name.rpartition(".")
        where = "" if section == table else f" in [{section}]" if section else f", outside [{table}]"
        hints.setdefault(key, key + where)
    return hints
