"""Serve the shop with waitress, and ship what it measures: ``python -m examples.shop.server PORT DESTINATION``."""

import os
import signal
import socket
import sys

from waitress.server import create_server

import metricslib as metrics

from .app import create_app


def main(port: int, destination: str) -> None:
    """Serve until SIGTERM, then send the last interval. Prints the address when it listens."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to stop
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        sys.exit(f"the shop cannot listen on 127.0.0.1:{port}: {os.strerror(error.errno or 0)}")
    metrics.start(destination, interval=10)
    server = create_server(create_app(), sockets=[listener], threads=8, clear_untrusted_proxy_headers=True)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
