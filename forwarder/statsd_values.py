"""What statsd's values are in the forwarder's configuration: milliseconds to seconds, hosts and ports to URLs.

In: a configuration of statsd, as :class:`Statsd`. Out: for an option of ours the value that TOML would hold, or None
where statsd's says nothing. What cannot be taken over is left out there, with the reason. Like statsd these functions
take numbers in quotes, and what is empty, 0 or false for not given where that does the same there.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from metricslib.delivery import open_destination
from metricslib.errors import InvalidDestination
from metricslib.naming import Naming

from .addresses import parse, parse_target

__all__ = ["Statsd", "as_given", "console", "deleted", "destinations", "interval", "listeners", "log_level"]
__all__ += ["bins", "gauges_ttl", "percentiles", "repeaters", "seconds", "socket_mode"]

DEFAULT_SERVER, DEFAULT_BACKEND = "./servers/udp", "./backends/graphite"


class Statsd:
    """statsd's options by name, those of a table as ``graphite.globalPrefix``, and what could not be taken over."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = {name: value for name, value in _flat(given) if value is not None}
        self.used: list[str] = []
        """The options that were asked for and given, since this was last emptied."""
        self.left_out: list[tuple[str, str]] = []
        """Options and reasons."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._given.items())

    def get(self, name: str, default: Any = None) -> Any:
        """Return an option's value."""
        if name not in self._given:
            return default
        if name not in self.used:
            self.used.append(name)
        return self._given[name]

    def leave(self, name: str, why: str) -> None:
        """Leave an option out."""
        if (name, why) not in self.left_out:
            self.left_out.append((name, why))


TABLES = ("graphite", "keyFlush", "console", "log")


def _flat(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if name in TABLES and isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            yield name, value


# -- one option


def as_given(name: str, statsd: Statsd) -> Any:
    """Return the option ``name`` as it is."""
    return statsd.get(name)


def seconds(name: str, statsd: Statsd) -> float | None:
    """Return the seconds of an option in milliseconds."""
    value = statsd.get(name)
    return None if value is None else _plain(_number(value) / 1000)


def interval(statsd: Statsd) -> int:
    """Return ``flushInterval`` in whole seconds."""
    exact = _number(statsd.get("flushInterval") or 10_000) / 1000
    whole = max(1, round(exact))
    if whole != exact:
        statsd.leave("flushInterval", f"stamps are whole seconds, so intervals are, too: {exact:g} s became {whole} s")
    return whole


def percentiles(statsd: Statsd) -> list[float]:
    """Return ``percentThreshold`` as a list."""
    value = statsd.get("percentThreshold") or 90
    return [_plain(_number(percent)) for percent in (value if isinstance(value, list) else [value])]


def bins(statsd: Statsd) -> list[dict[str, Any]] | None:
    """Return ``histogram`` with the names of ours."""
    value = statsd.get("histogram")
    if value is None:
        return None
    bounds = {"inf": math.inf}
    return [
        {"match": entry["metric"], "bounds": [bounds.get(bound) or _plain(_number(bound)) for bound in entry["bins"]]}
        for entry in value
    ]


def gauges_ttl(statsd: Statsd) -> int | None:
    """Return ``gaugesMaxTTL``, which is 1 unless it is a whole number above."""
    value = statsd.get("gaugesMaxTTL")
    return None if value is None else value if _is_whole(value) and value > 1 else 1


def log_level(statsd: Statsd) -> str:
    """Return ``debug`` as a level."""
    return "debug" if statsd.get("debug") else "info"


# -- several options

_DELETE = {
    "counters": "deleteCounters",
    "timers": "deleteTimers",
    "histograms": "deleteTimers",
    "gauges": "deleteGauges",
    "sets": "deleteSets",
}


def deleted(statsd: Statsd) -> list[str]:
    """Return the kinds of series that ``deleteIdleStats`` and the options for single kinds delete."""
    every = bool(statsd.get("deleteIdleStats"))
    return [kind for kind, option in _DELETE.items() if statsd.get(option, every)]


def console(statsd: Statsd) -> str:
    """Return where the management console listens. Where statsd is told no address, it is open to everybody."""
    host = statsd.get("mgmt_address")
    if not host:
        why = 'not given, so statsd lets everybody in; here: only this machine. To let others in: console = "[::]:PORT"'
        statsd.leave("mgmt_address", why)
    elif host not in ("127.0.0.1", "::1", "localhost"):
        why = "from other machines, commands that change something are refused; console_admin = true lets them"
        statsd.leave("mgmt_address", why)
    return _place(host or "127.0.0.1", statsd.get("mgmt_port") or 8126)


def listeners(statsd: Statsd) -> list[str]:
    """Return where ``servers`` listen, or without these the options ``server``, ``address`` and so on."""
    return [url for where, server in _servers(statsd) if (url := _listener(where, server, statsd)) is not None]


def socket_mode(statsd: Statsd) -> str | None:
    """Return ``socket_mod`` of the servers on Unix sockets; ours have one mode."""
    given = [(where, _mode(server("socket_mod"))) for where, server in _servers(statsd) if server("socket_mod")]
    for where, mode in given:
        if mode != given[0][1]:
            statsd.leave(
                f"{where}socket_mod", f"all Unix sockets have one mode, {given[0][1]} of the first; not {mode}"
            )
    return given[0][1] if given else None


def destinations(statsd: Statsd) -> list[str]:
    """Return where ``backends`` send, or without these where Graphite is."""
    urls = []
    for backend in statsd.get("backends") or [DEFAULT_BACKEND]:
        match PurePosixPath(str(backend)).stem:
            case "graphite":
                urls += _graphite(statsd)
            case "console":
                urls.append("console:")
            case "repeater":
                pass
            case _:
                known = "graphite, console and repeater are known here, and the destinations of the reference"
                statsd.leave("backends", f"{backend}: {known}")
    return urls


def repeaters(statsd: Statsd) -> list[str] | None:
    """Return the URLs of ``repeater``, if that backend is loaded."""
    given = statsd.get("repeater")
    if not given:
        return None
    if not any(PurePosixPath(str(backend)).stem == "repeater" for backend in statsd.get("backends") or []):
        statsd.leave("repeater", "its backend is not among backends, so statsd repeats nothing, either")
        return None
    scheme = "tcp" if statsd.get("repeaterProtocol") == "tcp" else "udp"
    urls = [f"{scheme}://{_place(target['host'], target['port'])}" for target in given]
    return [url for url in urls if _works(partial(parse_target, url), "repeater", statsd)]


# -- parts of these


def _servers(statsd: Statsd) -> Iterator[tuple[str, Callable[[str], Any]]]:
    servers = statsd.get("servers")
    if not servers:
        yield "", statsd.get
        return
    for number, server in enumerate(servers):
        yield f"servers[{number}].", server.get


def _listener(where: str, server: Callable[[str], Any], statsd: Statsd) -> str | None:
    kind = PurePosixPath(str(server("server") or DEFAULT_SERVER)).stem
    address, port = server("address"), server("port") or 8125
    if kind == "tcp":
        # Told nothing, node listens on all addresses of both families.
        url = f"unix://{server('socket')}" if server("socket") else f"tcp://{_place(address or '::', port)}"
    elif kind == "udp":
        url = f"udp://{_place(address or ('::' if server('address_ipv6') else '0.0.0.0'), port)}"
    else:
        statsd.leave(f"{where}server", f"{server('server')}: only udp and tcp are known here")
        return None
    return url if _works(partial(parse, url), f"{where}address", statsd) else None


def _graphite(statsd: Statsd) -> list[str]:
    host = statsd.get("graphiteHost")
    if not host:
        return []  # statsd computes everything then, and sends it nowhere
    if statsd.get("graphiteProtocol") == "pickle":
        why = "lines are sent instead, to graphitePort: carbon takes both, and the points are the same"
        statsd.leave("graphiteProtocol", why)
    url = f"graphite://{_place(host, statsd.get('graphitePort') or 2003)}"
    return [url] if _works(partial(open_destination, url, Naming()), "graphiteHost", statsd) else []


def _works(check: Callable[[], object], name: str, statsd: Statsd) -> bool:
    try:
        check()
    except InvalidDestination as error:
        statsd.leave(name, str(error))
    except ValueError as error:
        statsd.leave(name, f"{check.args[0]} {error}" if isinstance(check, partial) else str(error))
    else:
        return True
    return False


def _place(host: object, port: object) -> str:
    return f"[{host}]:{_whole(port)}" if ":" in str(host) else f"{host}:{_whole(port)}"


def _mode(value: object) -> str:
    number = int(value, 8) if isinstance(value, str) else _whole(value)
    return f"{number:04o}"


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _whole(value: object) -> int:
    number = _number(value)
    if not _is_whole(number):
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()


def _plain(number: float) -> float:
    """Write what is whole without a point."""
    return int(number) if number.is_integer() else number
