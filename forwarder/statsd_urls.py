"""Where statsd listens and where it sends to, as the forwarder's URLs.

In: a configuration of statsd, as :class:`~forwarder.statsd_values.Statsd`. Out: the values of ``listen``, ``to``,
``repeat``, ``console`` and ``socket_mode``. What cannot be taken over is left out there, with the reason; of a list
only the entries that cannot be.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from metricslib.delivery import open_destination
from metricslib.errors import InvalidDestination
from metricslib.naming import Naming

from .addresses import parse, parse_target
from .javascript import UNDEFINED, shown, to_number, to_text, truthy
from .statsd_values import Statsd

__all__ = ["console", "destinations", "listeners", "repeaters", "socket_mode"]

DEFAULT_SERVER, DEFAULT_BACKEND = "./servers/udp", "./backends/graphite"


def console(statsd: Statsd) -> str:
    """Return where the management console listens. Where statsd is told no address, it is open to everybody."""
    host = statsd.get("mgmt_address")
    if not isinstance(host, str) or not host:
        why = 'not set, so statsd is open to all hosts; here only to this host. To open it: console = "[::]:PORT"'
        statsd.leave("mgmt_address", why)
        host = "127.0.0.1"
    elif host not in ("127.0.0.1", "::1", "localhost"):
        why = "from other machines, commands that change something are refused; console_admin = true lets them"
        statsd.leave("mgmt_address", why)
    return _place(host, statsd.either("mgmt_port", 8126))


def listeners(statsd: Statsd) -> list[str]:
    """Return where ``servers`` listen, or without these the options ``server``, ``address`` and so on."""
    return [url for where, server in _servers(statsd) if (url := _listener(where, server, statsd)) is not None]


def socket_mode(statsd: Statsd) -> str | None:
    """Return ``socket_mod`` of the servers on Unix sockets; ours have one mode."""
    found: str | None = None
    for where, server in _servers(statsd):
        given = server("socket_mod")
        if not truthy(given):
            continue
        mode = _mode(given)
        if mode is None:
            statsd.leave(f"{where}socket_mod", f"{shown(given)} is no mode of a file")
        elif found is None:
            found = mode
        elif mode != found:
            statsd.leave(f"{where}socket_mod", f"all Unix sockets have one mode, {found} of the first; not {mode}")
    return found


def destinations(statsd: Statsd) -> list[str]:
    """Return where ``backends`` send, or without these where Graphite is."""
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
                statsd.leave("backends", f"{backend if isinstance(backend, str) else shown(backend)}: {known}")
    return list(urls)


def repeaters(statsd: Statsd) -> list[str] | None:
    """Return the URLs of ``repeater``, if that backend is loaded."""
    targets = statsd.either("repeater", None)
    if targets is None:
        return None
    if "repeater" not in map(_module, _backends(statsd)):
        statsd.leave("repeater", "its backend is not among backends, so statsd repeats nothing, either")
        return None
    if not isinstance(targets, list):
        statsd.leave("repeater", f"{shown(targets)} is no list, so statsd repeats nothing, either")
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
            statsd.leave("repeater", f"{shown(target)} has no host and port")
        else:
            if _works(partial(parse_target, url), "repeater", statsd):
                urls.append(url)
    return urls


# -- parts of these


def _backends(statsd: Statsd) -> list[Any]:
    """Return what ``backends`` names. Nothing is loaded for what has no length, such as a number."""
    value = statsd.either("backends", [DEFAULT_BACKEND])
    if isinstance(value, list):
        return value
    statsd.leave("backends", f"{shown(value)} is no list, so statsd loads none")
    return []


def _module(name: Any) -> str:
    return PurePosixPath(name).stem if isinstance(name, str) else ""


def _servers(statsd: Statsd) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """Yield what stands before the names of each server's options, and a function that returns their values."""
    servers = statsd.either("servers", None)
    if servers is None:
        yield "", statsd.get
    elif not isinstance(servers, list):
        statsd.leave("servers", f"{shown(servers)} is no list, so statsd starts none")
    else:
        for number, server in enumerate(servers):
            if isinstance(server, dict):
                yield f"servers[{number}].", partial(_option, server)
            else:
                statsd.leave(f"servers[{number}]", f"{shown(server)} is no server")


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
            # Told nothing, node listens on all addresses of both families. A socket that is a number is a port.
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
            statsd.leave(f"{where}server", f"{shown_name}: only udp and tcp are known here")
            return None
    except ValueError as error:
        statsd.leave(place, str(error))
        return None
    return url if _works(partial(parse, url), f"{where}address", statsd) else None


def _graphite(statsd: Statsd) -> list[str]:
    host = statsd.either("graphiteHost", None)
    if host is None:
        return []  # statsd computes everything then, and sends it nowhere
    if to_text(statsd.get("graphiteProtocol")) == "pickle":
        url = f"graphite+pickle://{_place(host, statsd.either('graphitePicklePort', 2004))}"
    else:
        url = f"graphite://{_place(host, statsd.either('graphitePort', 2003))}"
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


def _place(host: Any, port: Any) -> str:
    """Return host and port as they stand in a URL. Raises ValueError for what node takes for neither."""
    number = to_number(port) if isinstance(port, int | float | str) and not isinstance(port, bool) else math.nan
    if not isinstance(host, str):
        raise ValueError(f"{shown(host)} is no name of a host")
    if not (0 <= number < 65536 and number == int(number) and port != ""):
        raise ValueError(f"{shown(port)} is no port")
    return f"[{host}]:{int(number)}" if ":" in host else f"{host}:{int(number)}"


def _mode(value: Any) -> str | None:
    if isinstance(value, str):
        return f"{int(value, 8):04o}" if re.fullmatch("[0-7]+", value) and len(value) < 10 else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 0o777:
        return f"{value:04o}"
    return None
