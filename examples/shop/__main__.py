"""The whole pipeline on one machine, with no server needed: ``make run``.

Starts the forwarder (its page; Graphite's own whisper files under ``./data``), the shop under a real WSGI server, which
ships to the forwarder over a Unix socket, and steady traffic. Ctrl-C ends it in order: traffic, shop, forwarder; each
hands on what it has, so that the last interval is in the files too. In the place of a port that is taken it takes a
free one.
"""

import argparse
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from .traffic import Traffic

PORTS = {"shop": 8000, "statsd lines": 8125, "console": 8126, "forwarder's page": 8127}
"""What listens where, by default."""


def free(what: str, port: int) -> int:
    """Return ``port`` if it can be had over TCP and UDP; otherwise say so, and return 0, which takes any free one."""
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as trial:
                if kind is socket.SOCK_STREAM:  # as servers do, for connections that have just ended are no obstacle
                    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(("127.0.0.1", port))
    except OSError as error:
        print(f"port {port} for the {what}: {error.strerror}; taking a free one", file=sys.stderr)
        return 0
    return port


def is_served(path: Path) -> bool:
    """Whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(path)) == 0


def forwarder(data: Path, ports: tuple[str, str, str]) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Start the forwarder and return it with its addresses by scheme, once it is ready."""
    statsd, console, page = ports
    command = [sys.executable, "-m", "forwarder", "--http", page, "--console", console]
    command += ["--listen", f"udp://{statsd}", "--listen", f"tcp://{statsd}", "--listen", f"unix://{data}/statsd.sock"]
    command += ["--to", f"whisper://{data}/whisper"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("ready "):
            addresses = {word.partition("://")[0]: word for word in line.split() if "://" in word}
            _pass_on("forwarder", process.stderr)
            return process, addresses
        sys.stderr.write(line)
    process.stderr.close()
    raise SystemExit(process.wait() or 1)


def _pass_on(name: str, stream: IO[str]) -> None:
    def read() -> None:
        with stream:
            for line in stream:
                sys.stderr.write(f"{name}: {line}")

    threading.Thread(target=read).start()


def shop(data: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    """Start the shop and return it with its address."""
    command = [sys.executable, "-m", "examples.shop.server", str(port), f"statsd+unix://{data}/statsd.sock"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    if not address:
        process.stdout.close()
        raise SystemExit(process.wait() or 1)
    _pass_on("shop", process.stdout)
    return process, address


def end(process: subprocess.Popen[str]) -> None:
    """Tell a process to end, and wait until it has."""
    process.terminate()
    process.wait()


def told_to_end() -> threading.Event:
    """Return an event that Ctrl-C or SIGTERM sets, from now on, whatever has begun by then."""
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    return done


def main() -> None:
    parser = argparse.ArgumentParser(prog="make run", description="Run the example shop, a forwarder and traffic.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="directory of the whisper files (./data)")
    parser.add_argument("--seconds", type=float, help="end by itself after so many seconds")
    parser.add_argument("--free-ports", action="store_true", help="do not try 8000, 8125, 8126 and 8127 first")
    options = parser.parse_args()
    done = told_to_end()
    data = options.data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    if is_served(data / "statsd.sock"):
        raise SystemExit(f"another run uses {data}: end it, or take another directory: make run ARGS='--data other'")
    found = {what: 0 if options.free_ports else free(what, port) for what, port in PORTS.items()}
    selling_port, statsd, console, page = found.values()
    ports = (f"127.0.0.1:{statsd}", f"127.0.0.1:{console}", f"127.0.0.1:{page}")

    with ExitStack() as running:  # whatever happens, what has begun is ended, in this order: traffic, shop, forwarder
        forwarding, addresses = forwarder(data, ports)
        running.callback(end, forwarding)
        selling, address = shop(data, selling_port)
        running.callback(end, selling)
        traffic = Traffic(address)
        traffic.start()
        running.callback(traffic.stop)
        print(f"the shop            {address}/")
        print(f"its metrics         {address}/metrics/")
        print(f"the forwarder       {addresses['http']}/")
        print(f"its console         {addresses['console']}")
        print(f"statsd lines to     {addresses['udp']}, {addresses['tcp']}")
        print(f"whisper files in    {data}/whisper")
        print("Ctrl-C ends it.", flush=True)
        done.wait(options.seconds)
        print("\nending: traffic, shop, forwarder")
    print("answered:", ", ".join(f"{count} × {status}" for status, count in sorted(traffic.sent.items())))
    raise SystemExit(selling.returncode or forwarding.returncode)


if __name__ == "__main__":
    main()
