"""Converts a configuration of statsd to one of the forwarder.

In: the text of statsd's configuration. Out: an equivalent configuration of the forwarder as TOML, and a list of the
settings that could not be converted, with the reasons. :data:`STATSD` defines the equivalent of each option, and
``docs/reference/statsd-options.md`` shows this table. A default of statsd that differs from the forwarder's default is
written out.

The file contains, in this order: values, addresses, the table of options, and the conversion. Each function of the
first two parts takes the configuration as :class:`Statsd`. It returns the TOML value of one option of the forwarder, or
None if statsd's configuration does not set it. A setting that cannot be converted is recorded in the :class:`Statsd`,
with the reason; the valid entries of a list are converted nevertheless. Where statsd relies on JavaScript's
conversions, the same conversions apply: ``null``, ``0`` and ``""`` usually count as not given, an empty list does not,
and numbers may be in quotes.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from metricslib.delivery import open_destination
from metricslib.errors import InvalidDestination
from metricslib.naming import Naming, Spelled

from . import javascript
from .addresses import parse, parse_target
from .config import OPTIONS, Config, ConfigError, of_file, settle
from .javascript import UNDEFINED, shown, to_number, to_text, truthy
from .options import toml

__all__ = [
    "Conversion",
    "OURS",
    "STATSD",
    "Statsd",
    "StatsdOption",
    "TABLES",
    "bins",
    "calculated",
    "console",
    "convert",
    "deleted",
    "destinations",
    "gauges_ttl",
    "given",
    "interval",
    "key_flush_interval",
    "listeners",
    "repeaters",
    "socket_mode",
    "table",
]

__all__ += ["key_flush_percent", "legacy", "log_level", "namespace", "own_prefix", "percentiles", "suffix", "switch"]
__all__ += ["text"]


class Statsd:
    """statsd's options by name, and the settings that could not be converted.

    Options in a table have names such as ``graphite.globalPrefix``.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = {name: value for name, value in _flat(given) if value is not UNDEFINED}
        self.used: dict[str, None] = {}
        """The given options that were read since this was last cleared, in order."""
        self.left_out: dict[tuple[str, str], None] = {}
        """Options and reasons, in order."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._given.items())

    def get(self, name: str) -> Any:
        """Return an option's value, or :data:`~.javascript.UNDEFINED` if it is not given."""
        if name in self._given:
            self.used[name] = None
        return self.peek(name)

    def peek(self, name: str) -> Any:
        """Return an option's value like :meth:`get`, without adding it to :attr:`used`."""
        return self._given.get(name, UNDEFINED)

    def either(self, name: str, default: Any) -> Any:
        """Return an option's value, or the default if the value is false, like ``config.name || default`` in statsd."""
        value = self.get(name)
        return value if truthy(value) else default

    def leave_out(self, name: str, why: str) -> None:
        """Record that an option cannot be converted."""
        self.left_out[name, why] = None


TABLES = ("graphite", "keyFlush", "console", "log")


def _flat(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if name in TABLES and isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        elif name not in TABLES or truthy(value):  # statsd ignores a table whose value is false
            yield name, value


# -- one option


def given(name: str, statsd: Statsd) -> Any:
    """Return the option ``name``, or None if statsd would use its default instead."""
    return statsd.either(name, None)


def switch(name: str, statsd: Statsd) -> bool | None:
    """Return whether the option ``name`` is true to JavaScript."""
    value = statsd.get(name)
    return None if value is UNDEFINED else truthy(value)


def text(name: str, statsd: Statsd) -> str | None:
    """Return the option ``name`` as text."""
    value = statsd.get(name)
    return None if value is UNDEFINED else to_text(value)


def log_level(statsd: Statsd) -> str:
    """Return ``debug`` as a level."""
    return "debug" if truthy(statsd.get("debug")) else "info"


_LONGEST_TIMER = 2**31 - 1
"""The longest timer of Node in milliseconds. Longer ones expire at once."""


def _milliseconds(value: float) -> float:
    if not 0 < value <= _LONGEST_TIMER:
        raise ValueError(value)
    return value


def interval(statsd: Statsd) -> int:
    """Return ``flushInterval`` in whole seconds."""
    exact = _milliseconds(to_number(statsd.either("flushInterval", 10_000))) / 1000
    rounded = max(1, round(exact))
    if rounded != exact:
        statsd.leave_out(
            "flushInterval", f"stamps are whole seconds, so intervals are, too: {exact:g} s became {rounded} s"
        )
    return rounded


def key_flush_interval(statsd: Statsd) -> float | None:
    """Return ``keyFlush.interval`` in seconds."""
    value = to_number(statsd.either("keyFlush.interval", 0))
    return _plain(_milliseconds(value) / 1000) if value > 0 else None  # a value that is not a number is NaN


def key_flush_percent(statsd: Statsd) -> float | None:
    """Return ``keyFlush.percent``."""
    value = statsd.either("keyFlush.percent", None)
    return None if value is None else to_number(value)


def gauges_ttl(statsd: Statsd) -> int | None:
    """Return ``gaugesMaxTTL`` if it is an integer above 1 without quotes. Any other value counts as 1."""
    value = statsd.get("gaugesMaxTTL")
    if value is UNDEFINED:
        return None
    whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    return int(value) if whole and value > 1 else 1


_DELETE = {
    "counters": "deleteCounters",
    "timers": "deleteTimers",
    "histograms": "deleteTimers",
    "gauges": "deleteGauges",
    "sets": "deleteSets",
}


def deleted(statsd: Statsd) -> list[str]:
    """Return the kinds of series that ``deleteIdleStats`` and the options for single kinds delete."""
    every = statsd.get("deleteIdleStats")
    own = {kind: statsd.get(option) for kind, option in _DELETE.items()}
    return [kind for kind, value in own.items() if truthy(every if value is UNDEFINED else value)]


# -- names


def legacy(statsd: Statsd) -> bool:
    """Return ``graphite.legacyNamespace``. A value that is not a boolean turns it off: see :func:`namespace`."""
    return statsd.get("graphite.legacyNamespace") in (UNDEFINED, True) and not _is_mixed(statsd)


def _is_mixed(statsd: Statsd) -> bool:
    value = statsd.peek("graphite.legacyNamespace")
    return value is not UNDEFINED and not isinstance(value, bool)


_MIXED = {"globalPrefix": "stats", "prefixCounter": "", "prefixTimer": "timers", "prefixGauge": "gauges"}
_MIXED["prefixSet"] = "sets"


def namespace(option: str, statsd: Statsd) -> str | None:
    """Return a part of the namespace.

    If ``legacyNamespace`` is not a boolean, for example 0, statsd uses the parts of the legacy namespace in the order
    of the newer one: ``stats.NAME.rate`` and ``stats.timers.NAME.mean``.
    """
    if _is_mixed(statsd):
        statsd.get("graphite.legacyNamespace")
        return _MIXED[option]
    value = statsd.get(f"graphite.{option}")
    if value is UNDEFINED:
        return None
    part = "" if value is None else to_text(value)
    if not part and value != "":
        statsd.leave_out(
            f"graphite.{option}", f"{shown(value)} makes an empty part of the path in statsd; here the part is omitted"
        )
    return part


def suffix(statsd: Statsd) -> str | None:
    """Return ``graphite.globalSuffix``."""
    found = text("graphite.globalSuffix", statsd)
    if found == "":
        statsd.leave_out(
            "graphite.globalSuffix", "if it is empty, statsd adds a dot to every name; the forwarder does not"
        )
    return found


def own_prefix(statsd: Statsd) -> str | None:
    """Return ``prefixStats``. With other values than text and numbers, statsd crashes, or builds inconsistent names."""
    value = statsd.get("prefixStats")
    if value is None or isinstance(value, list | dict):
        raise ValueError(value)
    return None if value is UNDEFINED else to_text(value)


# -- lists


def percentiles(statsd: Statsd) -> list[float]:
    """Return ``percentThreshold`` as a list. A number in quotes keeps its spelling, because names contain it."""
    value = statsd.either("percentThreshold", 90)
    found: list[float] = []
    for percent in value if isinstance(value, list) else [value]:
        number = _number(percent)
        if number is None or not 0 < abs(number) <= 100:
            statsd.leave_out(
                "percentThreshold", f"{shown(percent)} cannot be made a percentage from -100 to 100, and not 0"
            )
        else:
            found.append(number)
    return found


def bins(statsd: Statsd) -> list[dict[str, Any]]:
    """Return ``histogram`` with the forwarder's names.

    In statsd, a bin gets no samples if its bound is not a number, or not above the bound before it. Such a bound is
    omitted, which does not affect the other bins.
    """
    value = statsd.either("histogram", [])
    found: list[dict[str, Any]] = []
    if not isinstance(value, list):
        statsd.leave_out("histogram", f"{shown(value)} is not a list")
        return found
    for place, entry in enumerate(value):
        if not isinstance(entry, dict):
            statsd.leave_out("histogram", f"entry {place} is not a metric with bins: {shown(entry)}")
            continue
        bounds = entry.get("bins", UNDEFINED)
        if not isinstance(bounds, list):
            statsd.leave_out("histogram", f"entry {place}: {shown(bounds)} is not a list of bins")
            bounds = []  # the metric has no bins, even if a later entry matches it
        rising = list(_rising(bounds, place, statsd))
        found.append({"match": to_text(entry.get("metric", UNDEFINED)), "bounds": rising})
    return found


def _rising(bounds: Iterable[Any], place: int, statsd: Statsd) -> Iterator[float]:
    last = -math.inf
    for bound in bounds:
        number = math.inf if to_text(bound) == "inf" else _number(bound)
        if number is None or not number > last:
            statsd.leave_out("histogram", f"entry {place}: {shown(bound)} is not a number above the bound before it")
        else:
            yield number
            last = number


def calculated(statsd: Statsd) -> list[str] | None:
    """Return ``calculatedTimerMetrics``. statsd ignores it if it is not a list, or empty."""
    value = statsd.get("calculatedTimerMetrics")
    if value is UNDEFINED:
        return None
    if not isinstance(value, list):
        if truthy(value):
            statsd.leave_out(
                "calculatedTimerMetrics", f"{shown(value)} is not a list, so statsd ignores it, and sends all"
            )
        return []
    names = [name for name in value if isinstance(name, str) and name]
    # In statsd, a list without any name of a statistic excludes all statistics.
    return names if names or not value else ["none"]


def _number(value: Any) -> float | None:
    """Return a number, or None if ``value`` is not one.

    A number in quotes keeps its spelling if JavaScript would write it differently.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | list):
        return None
    number, text = to_number(value), to_text(value)
    if math.isnan(number) or not text:
        return None
    if to_text(number) == text:
        return Spelled(text) if math.isinf(number) else _plain(number)
    try:
        return Spelled(text)
    except ValueError:  # white space, another base
        return None


def _plain(value: float) -> float:
    """Return an integral value as an int, which is written without a decimal point."""
    return int(value) if float(value).is_integer() else value


DEFAULT_SERVER, DEFAULT_BACKEND = "./servers/udp", "./backends/graphite"


def console(statsd: Statsd) -> str:
    """Return the address of the management console. Without one, statsd listens on all addresses."""
    host = statsd.get("mgmt_address")
    if not isinstance(host, str) or not host:
        why = 'not set, so statsd is open to all hosts; here only to this host. To open it: console = "[::]:PORT"'
        statsd.leave_out("mgmt_address", why)
        host = "127.0.0.1"
    elif host not in ("127.0.0.1", "::1", "localhost"):
        why = "from other machines, commands that change something are refused; console_admin = true lets them"
        statsd.leave_out("mgmt_address", why)
    return _place(host, statsd.either("mgmt_port", 8126))


def listeners(statsd: Statsd) -> list[str]:
    """Return the addresses of ``servers``, or if there are none, of the options ``server``, ``address`` and so on."""
    return [url for where, server in _servers(statsd) if (url := _listener(where, server, statsd)) is not None]


def socket_mode(statsd: Statsd) -> str | None:
    """Return ``socket_mod`` of the servers on Unix sockets. The forwarder has one mode for all."""
    found: str | None = None
    for where, server in _servers(statsd):
        given = server("socket_mod")
        if not truthy(given):
            continue
        mode = _mode(given)
        if mode is None:
            statsd.leave_out(f"{where}socket_mod", f"{shown(given)} is not a file mode")
        elif found is None:
            found = mode
        elif mode != found:
            statsd.leave_out(f"{where}socket_mod", f"all Unix sockets have one mode, {found} of the first; not {mode}")
    return found


def destinations(statsd: Statsd) -> list[str]:
    """Return the destinations of ``backends``, or if there are none, the address of Graphite."""
    urls: dict[str, None] = {}
    for backend in _backends(statsd):
        match _module(backend):
            case "graphite":
                urls |= dict.fromkeys(_graphite(statsd))
            case "console":
                urls["console:"] = None
            case "repeater":
                pass
            case _:
                known = "graphite, console and repeater are known here, and the destinations of the reference"
                statsd.leave_out("backends", f"{backend if isinstance(backend, str) else shown(backend)}: {known}")
    return list(urls)


def repeaters(statsd: Statsd) -> list[str] | None:
    """Return the URLs of ``repeater``, if that backend is loaded."""
    targets = statsd.either("repeater", None)
    if targets is None:
        return None
    if "repeater" not in map(_module, _backends(statsd)):
        statsd.leave_out("repeater", "its backend is not among backends, so statsd repeats nothing, either")
        return None
    if not isinstance(targets, list):
        statsd.leave_out("repeater", f"{shown(targets)} is not a list, so statsd repeats nothing, either")
        return None
    protocol = to_text(statsd.get("repeaterProtocol"))
    scheme, localhost = (
        ("tcp", "localhost") if protocol == "tcp" else ("udp", "::1" if protocol == "udp6" else "127.0.0.1")
    )
    urls = []
    for target in targets:
        try:
            host = target.get("host")
            url = f"{scheme}://{_place(host if truthy(host) else localhost, target.get('port'))}"
        except (AttributeError, ValueError):
            statsd.leave_out("repeater", f"{shown(target)} has no host and port")
        else:
            if _works(partial(parse_target, url), "repeater", statsd):
                urls.append(url)
    return urls


# -- parts of these


def _backends(statsd: Statsd) -> list[Any]:
    """Return the list ``backends``. As in statsd, no backend is loaded if it is not a list."""
    value = statsd.either("backends", [DEFAULT_BACKEND])
    if isinstance(value, list):
        return value
    statsd.leave_out("backends", f"{shown(value)} is not a list, so statsd loads none")
    return []


def _module(name: Any) -> str:
    return PurePosixPath(name).stem if isinstance(name, str) else ""


def _servers(statsd: Statsd) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """Yield for each server the prefix of its options' names in messages, and a function that returns their values."""
    servers = statsd.either("servers", None)
    if servers is None:
        yield "", statsd.get
    elif not isinstance(servers, list):
        statsd.leave_out("servers", f"{shown(servers)} is not a list, so statsd starts none")
    else:
        for number, server in enumerate(servers):
            if isinstance(server, dict):
                yield f"servers[{number}].", partial(_option, server)
            else:
                statsd.leave_out(f"servers[{number}]", f"{shown(server)} is not a server")


def _option(server: dict[str, Any], name: str) -> Any:
    return server.get(name, UNDEFINED)


def _listener(where: str, server: Callable[[str], Any], statsd: Statsd) -> str | None:
    given = server("server")
    name = given if truthy(given) else DEFAULT_SERVER
    kind, address, port, socket = _module(name), server("address"), server("port"), server("socket")
    port = port if truthy(port) else 8125
    place = f"{where}port"
    try:
        if kind == "tcp":
            # Without an address, Node listens on all addresses of both families. A socket that is a number is a port.
            if truthy(socket) and not to_number(socket) >= 0:
                place = f"{where}address"
                url = f"unix://{to_text(socket)}"
            else:
                host = address if truthy(address) and isinstance(address, str) else "::"
                url = f"tcp://{_place(host, socket if truthy(socket) else port)}"
        elif kind == "udp":
            host = address if truthy(address) else "::" if truthy(server("address_ipv6")) else "0.0.0.0"
            url = f"udp://{_place(host, port)}"
        else:
            shown_name = name if isinstance(name, str) else shown(name)
            statsd.leave_out(f"{where}server", f"{shown_name}: only udp and tcp are known here")
            return None
    except ValueError as error:
        statsd.leave_out(place, str(error))
        return None
    return url if _works(partial(parse, url), f"{where}address", statsd) else None


def _graphite(statsd: Statsd) -> list[str]:
    host = statsd.either("graphiteHost", None)
    if host is None:
        return []  # as in statsd, which then aggregates without sending anything
    if to_text(statsd.get("graphiteProtocol")) == "pickle":
        url = f"graphite+pickle://{_place(host, statsd.either('graphitePicklePort', 2004))}"
    else:
        url = f"graphite://{_place(host, statsd.either('graphitePort', 2003))}"
    return [url] if _works(partial(open_destination, url, Naming()), "graphiteHost", statsd) else []


def _works(check: Callable[[], object], name: str, statsd: Statsd) -> bool:
    try:
        check()
    except InvalidDestination as error:
        statsd.leave_out(name, str(error))
    except ValueError as error:
        statsd.leave_out(name, f"{check.args[0]} {error}" if isinstance(check, partial) else str(error))
    else:
        return True
    return False


def _place(host: Any, port: Any) -> str:
    """Return host and port as in a URL. Raises ValueError if Node would not accept them."""
    number = to_number(port) if isinstance(port, int | float | str) and not isinstance(port, bool) else math.nan
    if not isinstance(host, str):
        raise ValueError(f"{shown(host)} is not a host name")
    if not (0 <= number < 65536 and number == int(number) and port != ""):
        raise ValueError(f"{shown(port)} is not a port")
    return f"[{host}]:{int(number)}" if ":" in host else f"{host}:{int(number)}"


def _mode(value: Any) -> str | None:
    if isinstance(value, str):
        return f"{int(value, 8):04o}" if re.fullmatch("[0-7]+", value) and len(value) < 10 else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 0o777:
        return f"{value:04o}"
    return None


class StatsdOption(NamedTuple):
    """An option of statsd and its equivalent here."""

    name: str
    default: Any
    """The default of statsd; None if there is none."""
    ours: str
    """The equivalent option of the forwarder; empty if there is none."""
    why: str = ""
    """How it differs, or why there is no equivalent."""


_IN_LIST = "`true`: the kind is in the list"
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
    StatsdOption("deleteCounters", False, "delete_idle", _IN_LIST),
    StatsdOption("deleteTimers", False, "delete_idle", f"{_IN_LIST}, and histograms, too"),
    StatsdOption("deleteGauges", False, "delete_idle", _IN_LIST),
    StatsdOption("deleteSets", False, "delete_idle", _IN_LIST),
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
    "listen": listeners,
    "to": destinations,
    "interval": interval,
    "percentiles": percentiles,
    "console": console,
    "health": partial(given, "healthStatus"),
    "repeat": repeaters,
    "own_prefix": own_prefix,
    "own_account": lambda _: False,  # send no paths that statsd does not have
    "delete_idle": deleted,
    "gauges_ttl": gauges_ttl,
    "expire": lambda _: 0,  # statsd sends a series until it is deleted
    "socket_mode": socket_mode,
    "log_level": log_level,
    "naming.legacy": legacy,
    "naming.namespace": partial(namespace, "globalPrefix"),
    "naming.counters": partial(namespace, "prefixCounter"),
    "naming.timers": partial(namespace, "prefixTimer"),
    "naming.gauges": partial(namespace, "prefixGauge"),
    "naming.sets": partial(namespace, "prefixSet"),
    "naming.suffix": suffix,
    "naming.flush_counts": partial(switch, "flush_counts"),
    "naming.calculated": calculated,
    "naming.bins": bins,
    "key_flush.interval": key_flush_interval,
    "key_flush.percent": key_flush_percent,
    "key_flush.log": partial(given, "keyFlush.log"),
}
"""The function that computes each option of the forwarder from those of statsd."""


_PROXY = (
    "has nodes, so it is a configuration of statsd's proxy.js, not of stats.js. The forwarder does not distribute lines"
    " over other daemons; one forwarder replaces several nodes of statsd"
)


class Conversion(NamedTuple):
    """A configuration of the forwarder, and the settings of statsd that are not in it."""

    toml: str
    left_out: tuple[str, ...]
    """One line for each setting: the option, a colon, the reason."""


def convert(text: str, file: str) -> Conversion:
    """Return the equivalent of statsd's configuration ``text``. ``file`` is its name in messages.

    Raises :class:`~.config.ConfigError` if the text is not a JavaScript literal, or configures statsd's proxy.
    """
    try:
        found = javascript.read(text)
    except ValueError as error:
        raise ConfigError(file, "", str(error)) from None
    if not isinstance(found, dict):
        raise ConfigError(file, "", "is not an object: { graphiteHost: 'graphite.example', … }")
    if isinstance(found.get("nodes"), list):
        raise ConfigError(file, "nodes", _PROXY)
    statsd = Statsd(found)
    settings = _settings(statsd)
    _leave_out_unknown(statsd)
    left_out = tuple(_one_line(f"{name}: {why}") for name, why in statsd.left_out)
    lines = _lines(_one_line(file), settings, left_out)
    return Conversion("\n".join(lines).encode(errors="replace").decode(), left_out)


def _one_line(text: str) -> str:
    """Return ``text`` for use in a comment: unprintable characters are escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class _Setting(NamedTuple):
    name: str
    value: Any
    said: str
    """The options of statsd that set it; empty if it is statsd's default."""


def _settings(statsd: Statsd) -> list[_Setting]:
    default = Config().values()
    settings: list[_Setting] = []
    sure: dict[str, Any] = {}  # the valid settings so far
    for name, make in OURS.items():
        kind = OPTIONS[name].kind
        statsd.used.clear()
        try:
            value = make(statsd)
            checked = None if value is None else kind.check(value)
        except (ValueError, OverflowError):
            shown = ", ".join(javascript.shown(statsd.get(option)) for option in list(statsd.used))
            statsd.leave_out(", ".join(statsd.used), f"{shown} cannot be made {kind.expected}")
            continue
        if value is None or not (statsd.used or checked != default[name]):
            continue
        setting = _Setting(name, kind.raw(checked), ", ".join(statsd.used))
        try:
            one = of_file("\n".join(_sections([setting])), "")
            settle({**sure, **one})
        except ConfigError as error:
            statsd.leave_out(setting.said, error.reason)
        else:
            settings.append(setting)
            sure.update(one)
    return settings


def _leave_out_unknown(statsd: Statsd) -> None:
    known = {option.name: option for option in STATSD}
    for name, value in statsd:
        option = known.get(name)
        if option is None:
            statsd.leave_out(name, "statsd itself has no such option")
        elif not option.ours and _matters(option, value):
            statsd.leave_out(name, option.why)


def _matters(option: StatsdOption, value: Any) -> bool:
    """Return True if a value makes statsd behave differently from its default."""
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
