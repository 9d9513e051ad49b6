"""The daemon: creates listeners, registry, flusher and page from a configuration, and starts and stops them.

Every address is bound before anything is read, and ``ready`` is printed only then. When the daemon stops, it accepts no
new data, reads the data that the kernel has received, flushes and delivers the open interval, and closes the page last.
A reload changes the flusher in the middle of an interval. Registry and sockets stay, so no value is lost or counted
twice.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.errors import CannotListen, MetricsError
from metricslib.flusher import Flusher
from metricslib.registry import Registry
from metricslib.series_state import Idle
from metricslib.timed_queue import Empty, TimedQueue
from metricslib.view import Server, wsgi

from .aggregator import Aggregator
from .config import Config, masked_text
from .console import Console, Health
from .inputs import Inputs
from .listeners import CommandListener, Listener
from .repeater import Repeater
from .self_metrics import Input, SelfMetrics, own_counters, own_gauge
from .service import Inherited, Notifier, Watchdog
from .stats import DaemonStats, daemon_stats
from .top_keys import KeyFlush, TopKeys

__all__ = ["Daemon"]

log = logging.getLogger("forwarder")

GRACE = 0.5
"""Seconds after the end of an interval in which data still belongs to it. Programs with this library send at the moment
at which the forwarder's own interval ends. Without the delay, their data would fall into this slot or the next at
random, and a slot might get two intervals and the next none.
"""
_FIXED = (
    "listen",
    "http",
    "http_hosts",
    "console",
    "health",
    "spool",
    "repeat",
    "key_flush",
    "socket_mode",
    "socket_group",
    "receive_buffer",
    "udp_threads",
    "max_series",
    "max_tag_sets",
    "max_bytes",
    "own_prefix",
    "own_account",
)
"""Options that a reload cannot change."""


def _idle(config: Config) -> Idle:
    return Idle(config.stay, frozenset((*own_counters(config.own_prefix), own_gauge(config.own_prefix))))


class Daemon:
    """A forwarder, which is started and stopped once. The constructor raises the same errors as that of a flusher.

    Listeners use the sockets in ``inherited`` instead of binding their own. ``notifier`` informs the service manager.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock = SYSTEM_CLOCK,
        inherited: Inherited | None = None,
        notifier: Notifier | None = None,
        grace: float = GRACE,
    ) -> None:
        self.config = config
        self.registry = Registry(
            clock=clock,
            max_series=config.max_series,
            max_tag_sets=config.max_tag_sets,
            max_bytes=config.max_bytes or None,
            expire=config.expire or None,
            idle=_idle(config),
        )
        self.registry.boards = dict(config.boards)
        self.flusher = Flusher(
            self.registry,
            config.to,
            interval=config.interval,
            naming=config.naming,
            own=config.own_prefix if config.own_account else "",
            grace=grace,
            spool=config.spool or None,
            group=None,
        )
        self.health = Health(config.health)
        self._clock = clock
        self._started = clock.time()
        self._notifier = notifier or Notifier()
        self._repeater = Repeater(config.repeat, clock=clock) if config.repeat else None
        keys = config.key_flush
        self._keys = KeyFlush(TopKeys(), keys.interval, keys.percent, keys.log, clock=clock) if keys.interval else None
        consumers = (self._repeater, self._keys.top_keys if self._keys else None)
        self._inputs = Inputs(config, self.flusher, *consumers, inherited=inherited, clock=clock)
        self._console: Console | None = None
        self._commands: CommandListener | None = None
        self._page: Server | None = None

    # -- start

    def start(self) -> None:
        """Bind every address, and start.

        Raises :class:`CannotListen`, or RuntimeError if no thread can be started. Then nothing is bound or running.
        """
        try:
            self._inputs.open()
            self._open_console()
            self._serve(self.wire(self._inputs.inputs))
            self.flusher.start()
            if self._repeater:
                self._repeater.start()
            if self._keys:
                self._keys.start()
            for listener in (*self._inputs.listeners, *self._consoles()):
                listener.start()
        except BaseException:
            self._stop_all(0)
            raise
        if not self.config.to:
            log.info("no destination: measurements are only shown on the page")

    def wire(self, inputs: Sequence[Input]) -> SelfMetrics:
        """Add the aggregators of ``inputs`` and the daemon's own metrics to the registry."""
        config = self.config
        own = SelfMetrics(
            config.own_prefix,
            inputs,
            lambda: self.flusher.status().lag,
            account=config.own_account,
            others={f"console://{config.console}": listener.counts for listener in self._consoles()},
            clock=self._clock,
        )
        for key in own_counters(config.own_prefix):
            self.registry.reserve("counter", key)
        for one in inputs:
            if isinstance(one.feed, Aggregator) and not one.numbered:
                self.registry.add_source(one.feed)
        if self._inputs.deduplicator is not None:
            self.registry.add_source(self._inputs.deduplicator)
            self.flusher.add_participant(self._inputs.deduplicator)
        if self._repeater and config.own_account:
            self.registry.add_source(self._repeater.self_metrics(config.own_prefix))
        self.registry.add_source(own)  # last, so that it counts the data just collected from the others
        return own

    def _open_console(self) -> None:
        if self.config.management is None:
            return
        host, port = self.config.management
        console = self._console = Console(
            self.registry,
            self.health,
            daemon_stats=self.vitals,
            config=lambda: self.config.shown(),
            may_change=lambda: commands.on_loopback or self.config.console_admin,
            clock=self._clock,
        )
        commands = self._commands = CommandListener(host, port, console.answer, clock=self._clock)
        try:
            commands.bind()
        except (OSError, UnicodeError) as error:
            raise CannotListen(f"console://{self.config.console}", error) from error

    def _consoles(self) -> tuple[Listener, ...]:
        return (self._commands,) if self._commands else ()

    def vitals(self) -> DaemonStats:
        """Return the figures of statsd's ``stats`` command."""
        counts = [one.feed.counts() for one in self._inputs.inputs if not one.relays]
        return daemon_stats(self._started, self._clock.time(), counts, self.flusher.status().destinations)

    def _sections(self, own: SelfMetrics) -> Mapping[str, Any]:
        sections: dict[str, Any] = {"Health": {"Status": self.health.status}, **own.sections()}
        if self._repeater:
            sections["Repeater"] = self._repeater.section()
        if self._keys:
            sections["Busiest keys"] = self._keys.top_keys.section()
        if self._console and self._commands:
            address = {"Address": self._commands.address}
            sections["Console"] = {**address, **self._commands.counts(), **self._console.counts()}
        return sections

    def _serve(self, own: SelfMetrics) -> None:
        if self.config.page is None:
            return
        host, port = self.config.page
        app = wsgi(self.flusher, open=True, title="forwarder", extra=lambda: self._sections(own))
        try:
            self._page = Server(self.health.beside(app), port, host, hosts=self.config.http_hosts)
        except (OSError, UnicodeError) as error:
            raise CannotListen(f"http://{self.config.http}", error) from error

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every bound address as a URL, listeners first, then the console, the page last."""
        page = (self._page.url.rstrip("/"),) if self._page else ()
        bound = dict.fromkeys(listener.address for listener in (*self._inputs.listeners, *self._consoles()))
        return (*bound, *page)

    # -- reload

    def change(self, config: Config) -> None:
        """Apply ``config`` in the middle of an interval, which is sent as a whole under the new names.

        Sockets, caps and the own prefix do not change; a change of those is logged. Raises the same errors as
        the constructor of a flusher, and then nothing has changed.
        """
        before = self.config.values()
        changed = [name for name, value in config.values().items() if value != before[name]]
        fixed = [name for name in changed if name.partition(".")[0] in _FIXED]
        naming = replace(config.naming, own=self.config.naming.own)
        self.flusher.change(config.to, interval=config.interval, naming=naming, timeout=self.config.stop_timeout)
        self.config = replace(config, naming=naming, **{name: getattr(self.config, name) for name in _FIXED})
        self.registry.expire = config.expire or None
        self.registry.idle = _idle(self.config)
        self.registry.boards = dict(config.boards)
        if "log_level" in changed:
            set_level(config.log_level)
        if fixed:
            log.warning("changed only by a restart: %s", ", ".join(fixed))
        log.info("configuration reloaded; changed: %s", ", ".join(sorted({*changed} - {*fixed})) or "nothing")

    # -- stop

    def stop(self, timeout: float | None = None) -> bool:
        """Stop listening, read the received data, flush and deliver. Return True if all of that was done.

        ``timeout`` is in seconds; the default is configured. Data that is not delivered in time is logged and counted.
        """
        stopped, repeated, delivered = self._stop_all(self.config.stop_timeout if timeout is None else timeout)
        if not stopped:
            log.warning("not all received data could be read in time")
        if not repeated:
            log.warning("not everything could be repeated in time")
        return stopped and repeated and delivered

    def _stop_all(self, timeout: float) -> tuple[bool, bool, bool]:
        """End everything that was started. Return whether all data was read, repeated and delivered."""
        deadline = time.monotonic() + timeout
        reading_ends = time.monotonic() + timeout / 3
        for listener in self._inputs.listeners:
            listener.start_drain(timeout / 3)
        stopped = [listener.drain(max(0.0, reading_ends - time.monotonic())) for listener in self._inputs.listeners]
        if self._keys:
            self._keys.stop()
        repeated = not self._repeater or self._repeater.stop(max(0.0, (deadline - time.monotonic()) / 2))
        delivered = self.flusher.stop(max(0.0, deadline - time.monotonic()))
        for listener in (*self._inputs.listeners, *self._consoles()):
            listener.stop(0)
        if self._page:
            self._page.close()
        return all(stopped), repeated, delivered

    # -- as a process

    def run(self, load: Callable[[], Config], leave: Callable[[int], object]) -> None:
        """Start, print ``ready`` and every bound address on stderr, run until SIGTERM or SIGINT, and stop.

        On SIGHUP, ``load`` returns a new configuration. A second SIGTERM or SIGINT calls ``leave(1)`` in the signal
        handler, which must not return. Raises the same errors as :meth:`start`.
        """
        signals: TimedQueue[int] = TimedQueue()
        ending: list[int] = []

        def end(number: int, _frame: object) -> None:
            if ending:
                leave(1)
            ending.append(number)
            signals.put(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        signal.signal(signal.SIGHUP, lambda number, _frame: signals.put(number))
        set_level(self.config.log_level)
        self.start()
        watchdog = Watchdog(self._notifier, self.flusher, self._inputs.listeners)
        watchdog.start()
        print("ready", *self.addresses, file=sys.stderr, flush=True)
        self._notifier.ready(" ".join(self.addresses))
        while _next(signals) == signal.SIGHUP:
            self._notifier.reloading()
            self._reload(load)
            self._notifier.ready(" ".join(self.addresses))
        log.info("%s: stopping", signal.Signals(ending[0]).name)
        watchdog.stop()
        self._notifier.stopping()
        self.stop()

    def _reload(self, load: Callable[[], Config]) -> None:
        try:
            self.change(load())
        except (MetricsError, OSError) as error:
            log.error("reload refused, everything stays as it was: %s", masked_text(str(error)))
        except Exception as error:  # a defect: keep running with the old configuration
            log.exception("reload refused, everything stays as it was: unexpected %s", type(error).__name__)


def _next(signals: "TimedQueue[int]") -> int:
    """Wait for a signal, and return it.

    A signal at the very beginning of a wait does not end the wait, and its handler has not run. So no wait is longer
    than a second.
    """
    while True:
        try:
            return signals.get(timeout=1)
        except Empty:
            continue


def set_level(level: str) -> None:
    """Set the level of the loggers."""
    for name in ("forwarder", "metricslib"):
        logging.getLogger(name).setLevel(level.upper())
