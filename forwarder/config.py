"""The forwarder's configuration: flags, environment variables and a TOML file made into one frozen :class:`Config`.

In: what the command line gave, the environment, and the text of a file; nothing is read here. Out: a :class:`Config`,
or a :class:`ConfigError` that names the source and the key. A flag wins over the environment, the environment over the
file, the file over the default. An option ``stop_timeout`` is the flag ``--stop-timeout`` (where there is one), the
environment variable ``FORWARDER_STOP_TIMEOUT`` and the key ``stop_timeout`` in the file; options of a table such as
``[naming]`` are ``FORWARDER_NAMING_…``. A key that nobody knows is refused, for it is one that somebody believes in.
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
"""Characters of a wrong value that a message has."""
CONFIG = "FORWARDER_CONFIG"
"""Names the configuration file; the one variable that is no option."""

# Kubernetes gives every container such variables for a Service that is called "forwarder".
_KUBERNETES = re.compile(r"FORWARDER_(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP)\w*)?)")
_SECRET = re.compile(r"([?&](?:[^=&]*(?:token|secret|password|key)[^=&]*)=)[^&#]*", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^\s'\"]*@")
_NO_HOST = ("file", "whisper", "console")


class ConfigError(MetricsError, ValueError):
    """A configuration that cannot work. ``source`` is where it stands, ``key`` what is wrong there."""

    def __init__(self, source: str, key: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.key = key
        self.reason = reason


@dataclass(frozen=True, slots=True)
class KeyFlush:
    """Whether and how the busiest keys are told."""

    interval: float = 0
    """Seconds between two reports; 0: keys are not counted."""
    percent: float = 100
    """How many of the keys a report has."""
    log: str = ""
    """The file that reports are appended to; empty for the log."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the forwarder does. Durations are in seconds, sizes in bytes."""

    listen: tuple[str, ...] = ("udp://127.0.0.1:8125", "tcp://127.0.0.1:8125")
    to: tuple[str, ...] = ()
    interval: int = 10
    naming: Naming = field(default_factory=lambda: Naming(own="statsd"))
    """With prefix and percentiles; series under ``own_prefix`` are left without the prefix."""
    own_prefix: str = "statsd"
    http: str = "127.0.0.1:8127"
    http_hosts: tuple[str, ...] = ()
    """Names by which the page may be asked for where it is on loopback, beside ``localhost``."""
    console: str = "127.0.0.1:8126"
    console_admin: bool = False
    """Whether the console obeys commands that change something although it is not on loopback."""
    health: Literal["up", "down"] = "up"
    """What health is at the start."""
    spool: str = ""
    """Directory for what is not delivered yet; empty: it waits in memory."""
    repeat: tuple[str, ...] = ()
    key_flush: KeyFlush = KeyFlush()
    max_series: int = 1_000_000
    max_tag_sets: int = 10_000
    max_bytes: int = 0
    """How much memory series, remembered keys and members of sets may take; 0: a quarter of what there is."""
    expire: float = 86_400
    """After how long an idle series leaves; 0 keeps all."""
    delete_idle: tuple[str, ...] = ()
    """Kinds of series that are not sent while they are idle."""
    gauges_ttl: int = 1
    """In how many intervals a gauge is sent after it was set, where idle gauges are not sent."""
    own_account: bool = True
    """Whether what statsd does not have of itself is sent, too."""
    socket_mode: int = 0o600
    socket_group: str = ""
    """Which group Unix sockets' files get; empty: the process's own."""
    receive_buffer: int = 64 << 20
    udp_threads: int = 1
    """How many threads hear each UDP address, each with a socket of its own."""
    stop_timeout: float = 10
    log_level: str = "info"

    @property
    def page(self) -> tuple[str, int] | None:
        """Host and port of the page, None when it is off."""
        return None if self.http == "off" else host_and_port(self.http)

    @property
    def management(self) -> tuple[str, int] | None:
        """Host and port of the management console, None when it is off."""
        return None if self.console == "off" else host_and_port(self.console)

    @property
    def stay(self) -> Mapping[SeriesKind, int]:
        """For each kind of which idle series leave, in how many intervals one is sent after something happened."""
        return {options.SERIES[name]: self.gauges_ttl if name == "gauges" else 1 for name in self.delete_idle}

    def values(self) -> dict[str, Any]:
        """Return every option's value by its name."""
        found = {}
        for name in OPTIONS:
            section = _section(name)
            found[name] = getattr(getattr(self, section) if section else self, name.rpartition(".")[2])
        return found

    def shown(self) -> dict[str, Any]:
        """Return what a file with this configuration says: plain values, tables last. Secrets in URLs are masked."""
        shown: dict[str, Any] = {}
        for name, value in self.values().items():
            table, _, key = name.rpartition(".")
            kind = OPTIONS[name].kind
            place = shown.setdefault(table, {}) if table else shown
            place[key] = kind.raw(tuple(map(masked, value)) if kind is options.URLS else value)
        return shown

    def as_toml(self) -> str:
        """Return the configuration as TOML that gives the same again, but for secrets in URLs, which are masked."""
        lines: list[str] = []
        for key, value in self.shown().items():
            if key in _TABLES:
                lines += ["", f"[{key}]", *(f"{inner} = {toml(item)}" for inner, item in value.items())]
            else:
                lines.append(f"{key} = {toml(value)}")
        return "\n".join([*lines, ""])


class Option(NamedTuple):
    """One thing that can be configured. Those with a ``metavar`` are flags as well."""

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
    """Return the part of the configuration that has the option; nothing for the configuration itself."""
    return "naming" if name in ("prefix", "percentiles") else name.rpartition(".")[0]


class Setting(NamedTuple):
    """A checked value, and where it was found: a flag, a variable, or a file and key."""

    value: Any
    origin: str


Settings = Mapping[str, Setting]


def of_flags(flags: Mapping[str, str | list[str] | None]) -> Settings:
    """Return the settings among parsed flags; those that were not given are None."""
    return {
        name: _setting(
            name, f"--{name.replace('_', '-')}", given, OPTIONS[name].kind.of_text if isinstance(given, str) else None
        )
        for name, given in flags.items()
        if given is not None
    }


def of_environment(environ: Mapping[str, str]) -> Settings:
    """Return the settings in variables that start with ``FORWARDER_``; an empty one counts as not there."""
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
        raise ConfigError(file, "", f"is no TOML: {_short(str(error))}") from error
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
    """Return the configuration in which the first source that has an option decides."""
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
    """Return ``url``, or ``HOST:PORT``, without what must not be in a log: user, password, tokens.

    What stands in the place of a port, and is no number, may be a password.
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
    """Return ``text`` with all URLs in it without users, passwords and tokens."""
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
    """Refuse what is of the right kind and yet cannot work."""
    for value in (setting.value,) if isinstance(setting.value, str) else setting.value:
        try:
            _CHECKS[name](value)
        except ValueError as error:
            raise ConfigError(
                setting.origin, name, f"{_shown(OPTIONS[name].kind, value)} {getattr(error, 'reason', error)}"
            ) from None


def _check_repeat(values: Mapping[str, Any], settings: Mapping[str, Setting]) -> None:
    """Refuse to repeat to a listener of our own, which would hear everything again and again."""
    for url in values.get("repeat", ()):
        target = addresses.parse_target(url)
        for listener in map(addresses.parse, values.get("listen", Config().listen)):
            if target.reaches(listener):
                raise ConfigError(
                    settings["repeat"].origin, "repeat", f"{masked(url)!r} is an address of this forwarder"
                )


def _shown(kind: Kind, value: object) -> str:
    """Return a value that was refused for a message: without secrets, and no longer than one can read."""
    mask = masked if kind in (options.URLS, options.ADDRESS) else masked_text
    if isinstance(value, str):
        return _short(repr(mask(value)))
    if isinstance(value, list | tuple):
        value = [mask(item) if isinstance(item, str) else item for item in value]
    try:
        return _short(masked_text(toml(value)))
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"


def _short(text: str) -> str:
    """Return ``text`` for a message of one line."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def nearest(word: str, hints: Mapping[str, str]) -> str:
    """Return the hint that belongs to the word most like ``word``, as the end of a message; nothing when none is."""
    near = difflib.get_close_matches(word[:_SHOWN], hints, 1)
    return f"; did you mean {hints[near[0]]}?" if near else ""


def _hints(table: str) -> Mapping[str, str]:
    """Return what to say for each key to somebody who wrote in ``table``, also for keys that belong elsewhere."""
    hints: dict[str, str] = {}
    for name in sorted(OPTIONS, key=lambda name: name.rpartition(".")[0] != table):  # what stands there comes first
        section, _, key = name.rpartition(".")
        where = "" if section == table else f" in [{section}]" if section else f", outside [{table}]"
        hints.setdefault(key, key + where)
    return hints
