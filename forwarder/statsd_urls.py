"""Where statsd listens and where it sends to, as the forwarder's URLs.

In: a configuration of statsd, as :class:`~forwarder.statsd_values.Statsd`. Out: the values of ``listen``, ``to``,
``repeat``, ``console`` and ``socket_mode``. What cannot be taken over is left out there, with the reason.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from metricslib.delivery import open_destination
from metricslib.errors import InvalidDestination
from metricslib.naming import Naming

from .addresses import parse, parse_target
from .statsd_values import Statsd, whole

__all__ = ["console", "destinations", "listeners", "repeaters", "socket_mode"]

DEFAULT_SERVER, DEFAULT_BACKEND = "./servers/udp", "./backends/graphite"


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
        url = f"graphite+pickle://{_place(host, statsd.get('graphitePicklePort') or 2004)}"
    else:
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
    return f"[{host}]:{whole(port)}" if ":" in str(host) else f"{host}:{whole(port)}"


def _mode(value: object) -> str:
    number = int(value, 8) if isinstance(value, str) else whole(value)
    return f"{number:04o}"
