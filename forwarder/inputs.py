"""Creates the listener of each configured address, and the aggregator or relay that it feeds."""

import logging
import socket

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.errors import CannotListen
from metricslib.flusher import Flusher

from .addresses import Address, parse
from .aggregator import Aggregator
from .config import Config
from .dedup import Deduplicator
from .descriptors import connections_each
from .graphite import Relay
from .listeners import (
    Consumer,
    Listener,
    NumberedTcpListener,
    NumberedUnixListener,
    Sink,
    TcpListener,
    Tee,
    UdpListener,
    UnixDatagramListener,
    UnixStreamListener,
)
from .listeners.stream import CONNECTIONS
from .repeater import Repeater
from .self_metrics import Input
from .service import Inherited, InvalidSocket
from .top_keys import TopKeys

__all__ = ["Inputs"]

log = logging.getLogger("forwarder")

_SMALL = 4 << 20
"""Receive buffers with fewer bytes are logged, because a burst of datagrams can fill them."""


class Inputs:
    """The listeners of a configuration. Lines go to aggregators of the flusher's registry and to further consumers;
    Graphite points go to the flusher. Listeners use the sockets in ``inherited`` instead of binding their own.
    """

    def __init__(
        self,
        config: Config,
        flusher: Flusher,
        repeater: Repeater | None = None,
        top_keys: TopKeys | None = None,
        *,
        inherited: Inherited | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._config = config
        self._flusher = flusher
        self._repeater = repeater
        self._top_keys = top_keys
        self._inherited = inherited or Inherited()
        self._clock = clock
        self._connections = CONNECTIONS
        self._key_bytes = 0
        self.listeners: list[Listener] = []
        self.inputs: list[Input] = []
        self.deduplicator: Deduplicator | None = None
        """Recognises repeated batches; None without a listener for numbered batches."""

    def open(self) -> None:
        """Bind every address. Raises :class:`CannotListen` or :class:`~.service.InvalidSocket`."""
        self._connections = self._bound_connections()
        schemes = [parse(url).scheme for url in self._config.listen]
        aggregators = sum(self._config.udp_threads if scheme == "udp" else scheme != "graphite" for scheme in schemes)
        self._key_bytes = self._flusher.registry.budget.raw_keys.allowed // max(1, aggregators)
        for url in self._config.listen:
            self.inputs += self._open_address(url)
        self._leave_no_socket()

    def _bound_connections(self) -> int:
        """Return the maximum connections of each listener, so that descriptors remain for delivery and page."""
        config = self._config
        streams = sum(parse(url).scheme not in ("udp", "unixgram") for url in config.listen)
        hosts = sum(url.count(",") + 1 for url in (*config.to, *config.repeat))
        bound = connections_each(streams, len(config.listen) + config.udp_threads + hosts, CONNECTIONS)
        if bound < CONNECTIONS:
            log.warning("the limit of open files (ulimit -n) allows %d connections for each listener", bound)
        return bound

    def _open_address(self, url: str) -> list[Input]:
        """Open an address: for UDP, one socket per thread, except for an inherited socket."""
        address = parse(url)
        given = self._inherited.take(address)
        first = self._open_one(url, address, given)
        if address.scheme != "udp" or given:
            return [first]
        same = address._replace(port=parse(first.label).port)
        return [first, *(self._open_one(url, same) for _ in range(1, self._config.udp_threads))]

    def _open_one(self, url: str, address: Address, given: socket.socket | None = None) -> Input:
        feed: Aggregator | Relay
        numbered = address.scheme.startswith("forwarder+")
        if address.scheme == "graphite":
            feed = Relay(self._flusher.relay, clock=self._clock)
            listener = self._listener(address, feed)
        else:
            feed = Aggregator(
                self._flusher.registry,
                clock=self._clock,
                keys=max(1 << 20, 2 * self._config.max_series),
                key_bytes=self._key_bytes,
            )
            sink = self._teed(address, feed)
            listener = self._numbered(address, feed, sink) if numbered else self._listener(address, sink)
        self.listeners.append(listener)
        try:
            listener.bind(given)
        except (OSError, UnicodeError) as error:  # UnicodeError: an invalid host name
            raise CannotListen(url, error) from error
        if isinstance(listener, UdpListener):
            self._check_buffer(listener, given is not None)
        return Input(listener.address, feed, listener.counts, numbered)

    def _teed(self, address: Address, aggregator: Aggregator) -> Sink:
        """Return the sink of a listener: ``aggregator``, together with the further consumers."""
        consumers: list[Consumer] = []
        if self._repeater:
            datagrams = address.scheme in ("udp", "unixgram")
            consumers.append(self._repeater.datagrams if datagrams else self._repeater.blocks)
        if self._top_keys:
            consumers.append(self._top_keys.feed)
        return Tee(aggregator, consumers) if consumers else aggregator

    def _leave_no_socket(self) -> None:
        """Refuse to start with an inherited socket that no listener reads, because its data would be lost silently."""
        if left := self._inherited.left():
            self._inherited.close()
            known = ", ".join(self._config.listen) or "none"
            raise InvalidSocket(
                left[0], f"was passed by the service manager, but no listener has this address; listeners: {known}"
            )

    def _listener(self, address: Address, feed: Sink) -> Listener:
        mode, group, connections = self._config.socket_mode, self._config.socket_group, self._connections
        match address.scheme:
            case "udp":
                return UdpListener(
                    address.host,
                    address.port,
                    feed,
                    buffer=self._config.receive_buffer,
                    one_of_many=self._config.udp_threads > 1,
                    clock=self._clock,
                )
            case "unix":
                return UnixStreamListener(
                    address.path, feed, mode=mode, group=group, connections=connections, clock=self._clock
                )
            case "unixgram":
                return UnixDatagramListener(address.path, feed, mode=mode, group=group, clock=self._clock)
        return TcpListener(
            address.host, address.port, feed, scheme=address.scheme, connections=connections, clock=self._clock
        )

    def _numbered(self, address: Address, aggregator: Aggregator, sink: Sink) -> Listener:
        if self.deduplicator is None:
            self.deduplicator = Deduplicator(clock=self._clock)
        self.deduplicator.add_aggregator(aggregator)
        sync, clock = self._flusher.flush_soon, self._clock
        if address.path:
            return NumberedUnixListener(
                address.path,
                sink,
                self.deduplicator,
                interval=lambda: self._flusher.interval,
                sync=sync,
                mode=self._config.socket_mode,
                group=self._config.socket_group,
                connections=self._connections,
                clock=clock,
            )
        return NumberedTcpListener(
            address.host,
            address.port,
            sink,
            self.deduplicator,
            interval=lambda: self._flusher.interval,
            sync=sync,
            connections=self._connections,
            clock=clock,
        )

    def _check_buffer(self, listener: UdpListener, given: bool) -> None:
        wanted = self._config.receive_buffer
        if listener.receive_buffer < min(wanted, _SMALL):
            log.warning(
                "%s: the kernel limits the receive buffer to %d bytes and drops datagrams beyond it; for more: %s",
                listener.address,
                listener.receive_buffer,
                f"ReceiveBuffer={wanted} in the socket's unit" if given else f"sysctl -w net.core.rmem_max={wanted}",
            )
