"""statsd's configuration as ours: every option that statsd has, and what becomes of it.

In: the text of statsd's configuration. Out: a configuration with which the forwarder does the same, as TOML, and what
could not be taken over, with the reasons. :data:`STATSD` is the one place that says what becomes of an option;
``docs/reference/statsd-options.md`` shows it. What statsd does where its configuration says nothing is written out
wherever it is not our own default.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from . import javascript, statsd_urls, statsd_values
from .config import OPTIONS, Config, ConfigError, of_file, settle
from .options import toml
from .statsd_values import Statsd, given, namespace, switch

__all__ = ["OURS", "STATSD", "Conversion", "StatsdOption", "convert", "table"]


class StatsdOption(NamedTuple):
    """An option of statsd and its equivalent here."""

    name: str
    default: Any
    """The default of statsd; None if there is none."""
    ours: str
    """The equivalent option of the forwarder; empty if there is none."""
    why: str = ""
    """How it differs, or why there is no equivalent."""


_DELETE = "`true`: the kind is in the list"
_LOG = "the log goes to stderr; a service manager can pass it to syslog and elsewhere"
_LEGACY = "no effect in the legacy namespace, as in statsd"
_SERVER = "also in `servers`"

STATSD = (
    StatsdOption("server", "./servers/udp", "listen", f"the scheme `udp` or `tcp`; {_SERVER}"),
    StatsdOption("address", "0.0.0.0", "listen", f"the default of a TCP server is `::`, as in Node; {_SERVER}"),
    StatsdOption("address_ipv6", False, "listen", f"`[::]` if there is no address; {_SERVER}"),
    StatsdOption("port", 8125, "listen", _SERVER),
    StatsdOption("socket", None, "listen", f"`unix://`, for a TCP server; must be an absolute path; {_SERVER}"),
    StatsdOption("socket_mod", None, "socket_mode", f"one for all sockets; {_SERVER}"),
    StatsdOption("servers", None, "listen", "one URL for each server"),
    StatsdOption(
        "mgmt_address", None, "console", "if not set, statsd is open to all hosts, the forwarder only to this host"
    ),
    StatsdOption("mgmt_port", 8126, "console"),
    StatsdOption("healthStatus", "up", "health", "statsd 0.9.0 ignores it"),
    StatsdOption("title", None, "", "the service manager names the process"),
    StatsdOption("backends", ["./backends/graphite"], "to", "only the backends that come with statsd"),
    StatsdOption("graphiteHost", None, "to", "`graphite://HOST:PORT`"),
    StatsdOption("graphitePort", 2003, "to"),
    StatsdOption(
        "graphiteProtocol", "text", "to", "`pickle`: `graphite+pickle://HOST:PORT`; values are numbers, not strings"
    ),
    StatsdOption("graphitePicklePort", 2004, "to"),
    StatsdOption("graphite.legacyNamespace", True, "naming.legacy"),
    StatsdOption("graphite.globalPrefix", "stats", "naming.namespace", _LEGACY),
    StatsdOption("graphite.prefixCounter", "counters", "naming.counters", _LEGACY),
    StatsdOption("graphite.prefixTimer", "timers", "naming.timers", _LEGACY),
    StatsdOption("graphite.prefixGauge", "gauges", "naming.gauges", _LEGACY),
    StatsdOption("graphite.prefixSet", "sets", "naming.sets", _LEGACY),
    StatsdOption(
        "graphite.globalSuffix", "", "naming.suffix", "if it is set and empty, statsd adds a dot to every name"
    ),
    StatsdOption("prefixStats", "statsd", "own_prefix"),
    StatsdOption("flushInterval", 10_000, "interval", "in whole seconds"),
    StatsdOption("percentThreshold", 90, "percentiles", "always a list"),
    StatsdOption("histogram", [], "naming.bins", "`metric` is `match`, `bins` are `bounds`, `'inf'` is `inf`"),
    StatsdOption("flush_counts", True, "naming.flush_counts"),
    StatsdOption("calculatedTimerMetrics", [], "naming.calculated"),
    StatsdOption("deleteIdleStats", False, "delete_idle", "`true`: all kinds except those whose own option is `false`"),
    StatsdOption("deleteCounters", False, "delete_idle", _DELETE),
    StatsdOption("deleteTimers", False, "delete_idle", f"{_DELETE}, and histograms, too"),
    StatsdOption("deleteGauges", False, "delete_idle", _DELETE),
    StatsdOption("deleteSets", False, "delete_idle", _DELETE),
    StatsdOption("gaugesMaxTTL", 1, "gauges_ttl"),
    StatsdOption("keyFlush.interval", 0, "key_flush.interval", "in seconds"),
    StatsdOption("keyFlush.percent", 100, "key_flush.percent"),
    StatsdOption(
        "keyFlush.log", None, "key_flush.log", "if not set, reports go to the log, not to stdout; times are in RFC 3339"
    ),
    StatsdOption("repeater", [], "repeat", "if the backend is loaded; one URL for each server"),
    StatsdOption("repeaterProtocol", "udp4", "repeat", "the scheme; the address determines IPv4 or IPv6"),
    StatsdOption("debug", False, "log_level", "`true` is `debug`"),
    StatsdOption("dumpMessages", False, "", "it would flood the log; the page shows the last bad lines"),
    StatsdOption("log.backend", "stdout", "", _LOG),
    StatsdOption("log.application", "statsd", "", _LOG),
    StatsdOption("log.level", "LOG_INFO", "", _LOG),
    StatsdOption("console.prettyprint", None, "", "the destination `console:` prints Graphite lines"),
    StatsdOption(
        "keyNameSanitize",
        True,
        "",
        "names are always sanitised; with `false`, statsd sends tags unchanged, and may send two series under one name",
    ),
    StatsdOption("automaticConfigReload", True, "", "the file may be half-written when it is read; SIGHUP reloads it"),
)

OURS: Mapping[str, Callable[[Statsd], Any]] = {
    "listen": statsd_urls.listeners,
    "to": statsd_urls.destinations,
    "interval": statsd_values.interval,
    "percentiles": statsd_values.percentiles,
    "console": statsd_urls.console,
    "health": partial(given, "healthStatus"),
    "repeat": statsd_urls.repeaters,
    "own_prefix": statsd_values.own_prefix,
    "own_account": lambda _: False,  # no more paths than statsd has
    "delete_idle": statsd_values.deleted,
    "gauges_ttl": statsd_values.gauges_ttl,
    "expire": lambda _: 0,  # what is not deleted is sent for ever
    "socket_mode": statsd_urls.socket_mode,
    "log_level": statsd_values.log_level,
    "naming.legacy": statsd_values.legacy,
    "naming.namespace": partial(namespace, "globalPrefix"),
    "naming.counters": partial(namespace, "prefixCounter"),
    "naming.timers": partial(namespace, "prefixTimer"),
    "naming.gauges": partial(namespace, "prefixGauge"),
    "naming.sets": partial(namespace, "prefixSet"),
    "naming.suffix": statsd_values.suffix,
    "naming.flush_counts": partial(switch, "flush_counts"),
    "naming.calculated": statsd_values.calculated,
    "naming.bins": statsd_values.bins,
    "key_flush.interval": statsd_values.key_flush_interval,
    "key_flush.percent": statsd_values.key_flush_percent,
    "key_flush.log": partial(given, "keyFlush.log"),
}
"""How each option of ours that has to do with statsd's is made from them."""


_PROXY = (
    "has nodes, so it is a configuration of statsd's proxy.js, not of stats.js. The forwarder does not share lines out"
    " among other daemons; one of it takes what several nodes of statsd take"
)


class Conversion(NamedTuple):
    """A configuration of ours, and what of statsd's is not in it."""

    toml: str
    left_out: tuple[str, ...]
    """A line for each thing: the option, a colon, the reason."""


def convert(text: str, file: str) -> Conversion:
    """Return what statsd's configuration ``text`` is here. ``file`` names it.

    Raises :class:`~.config.ConfigError` where it is no JavaScript literal, or one of statsd's proxy.
    """
    try:
        found = javascript.read(text)
    except ValueError as error:
        raise ConfigError(file, "", str(error)) from None
    if not isinstance(found, dict):
        raise ConfigError(file, "", "is no object: { graphiteHost: 'graphite.example', … }")
    if isinstance(found.get("nodes"), list):
        raise ConfigError(file, "nodes", _PROXY)
    statsd = Statsd(found)
    settings = _settings(statsd)
    _leave_the_rest(statsd)
    left_out = tuple(_one_line(f"{name}: {why}") for name, why in statsd.left_out)
    lines = _lines(_one_line(file), settings, left_out)
    return Conversion("\n".join(lines).encode(errors="replace").decode(), left_out)


def _one_line(text: str) -> str:
    """Return ``text`` as it may stand in a comment."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class _Setting(NamedTuple):
    name: str
    value: Any
    said: str
    """The options of statsd that set it; empty if it is statsd's default."""


def _settings(statsd: Statsd) -> list[_Setting]:
    default = Config().values()
    settings: list[_Setting] = []
    sure: dict[str, Any] = {}  # as the configuration has them
    for name, make in OURS.items():
        kind = OPTIONS[name].kind
        statsd.used.clear()
        try:
            value = make(statsd)
            checked = None if value is None else kind.check(value)
        except (ValueError, OverflowError):
            shown = ", ".join(javascript.shown(statsd.get(option)) for option in list(statsd.used))
            statsd.leave(", ".join(statsd.used), f"{shown} cannot be made {kind.expected}")
            continue
        if value is None or not (statsd.used or checked != default[name]):
            continue
        setting = _Setting(name, kind.raw(checked), ", ".join(statsd.used))
        try:
            one = of_file("\n".join(_sections([setting])), "")
            settle({**sure, **one})
        except ConfigError as error:
            statsd.leave(setting.said, error.reason)
        else:
            settings.append(setting)
            sure.update(one)
    return settings


def _leave_the_rest(statsd: Statsd) -> None:
    known = {option.name: option for option in STATSD}
    for name, value in statsd:
        option = known.get(name)
        if option is None:
            statsd.leave(name, "statsd itself has no such option")
        elif not option.ours and _matters(option, value):
            statsd.leave(name, option.why)


def _matters(option: StatsdOption, value: Any) -> bool:
    """Return whether a value makes statsd do anything else than its default does."""
    if option.name == "automaticConfigReload":  # != false
        return value is not None and javascript.to_number(value) == 0
    if option.default is True:
        return not javascript.truthy(value)
    return javascript.truthy(value) and value != option.default


def _lines(file: str, settings: list[_Setting], left_out: tuple[str, ...]) -> Iterator[str]:
    yield f"# Converted from {file} by: forwarder --from-statsd"
    yield from _sections(settings)
    if left_out:
        yield from ("", "# Not converted:")
        yield from (f"# {line}" for line in left_out)
    yield ""


def _sections(settings: list[_Setting]) -> Iterator[str]:
    table = ""
    for name, value, said in sorted(settings, key=lambda setting: list(OPTIONS).index(setting.name)):
        home, _, key = name.rpartition(".")
        if home != table:
            yield from ("", f"[{home}]")
            table = home
        yield f"{key} = {toml(value)}  # {said or 'the default of statsd'}"


def table() -> str:
    """Return :data:`STATSD` as a table in Markdown."""
    rows = ["| statsd | default | forwarder | |", "|---|---|---|---|"]
    for name, default, ours, why in STATSD:
        shown = "" if default is None else f"`{toml(default)}`"
        rows.append(f"| `{name}` | {shown} | {f'`{ours}`' if ours else 'none'} | {why} |".replace("|  |", "| |"))
    return "\n".join([*rows, ""])
