"""What a service manager is told about us: systemd's notification protocol, sd_notify(3).

In: that we are ready, reload, stop, are alive. Out: datagrams to the Unix socket that ``NOTIFY_SOCKET`` names. Where
nobody wants to know, nothing is sent; what cannot be sent is logged once and never raised.
"""

import logging
import socket
import time
from collections.abc import MutableMapping

__all__ = ["Notifier"]

log = logging.getLogger("forwarder")

_PATIENCE = 1.0  # seconds; a manager that does not read must not hold us up


class Notifier:
    """Tells the manager that listens at ``address``; with an empty one it tells nobody.

    ``watchdog`` is the number of seconds within which the manager wants to hear :meth:`alive`; 0 if it does not.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog = watchdog if address else 0.0
        self._failed = False

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str], pid: int) -> "Notifier":
        """Return the one whom the manager asked process ``pid`` to have, and take the variables out of ``environ``."""
        address = environ.pop("NOTIFY_SOCKET", "")
        micros, owner = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        wanted = micros.isascii() and micros.isdecimal() and owner in ("", str(pid))
        return cls(address, min(int(micros[:16]), 10**15) / 1e6 if wanted else 0.0)

    def ready(self, status: str) -> None:
        """We work, for the first time or after a reload; ``status`` is a line for ``systemctl status``."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """We read the configuration again; :meth:`ready` follows, also when it was refused."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """We were told to stop, and deliver what is left."""
        self._tell("STOPPING=1", "STATUS=delivering what is left")

    def alive(self) -> None:
        """We do what we are here for, right now."""
        self._tell("WATCHDOG=1")

    def unwell(self, trouble: str) -> None:
        """We do not; ``trouble`` says why. The manager acts when it has not heard that we are alive for long enough."""
        self._tell(f"STATUS={trouble}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_PATIENCE)
                sock.connect(self._address)
                sock.send("\n".join(line.replace("\n", " ") for line in lines).encode())
        except OSError as error:
            if not self._failed:
                log.warning("the service manager cannot be told how we are (%s); this is logged once", error)
            self._failed = True
