"""Make the fixtures of the upgrade test, with the packages of another version: see README.md.

`python make.py DIRECTORY` writes three archives and `forwarder.checked.toml` there. Each archive is a
working directory: the spool directory `spool`, and the Whisper files `data`.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
inputs: Any = import_module("inputs")  # beside this file; `tests` is the other version's


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    check_configuration(out)
    for ending in ("killed", "stopped", "program"):
        while not made(ending, out):
            print(f"{ending}: ended while a batch was on its way; once more", file=sys.stderr)


def check_configuration(out: Path) -> None:
    """Write what that version understands of `forwarder.toml`, which must have every option it knows."""
    from forwarder.cli import main as forwarder
    from forwarder.config import OPTIONS, of_file

    missing = OPTIONS.keys() - of_file((HERE / "forwarder.toml").read_text(), "forwarder.toml").keys()
    assert not missing, f"forwarder.toml lacks {missing}"
    with open(out / "forwarder.checked.toml", "w") as file, redirect_stdout(file):
        assert forwarder(["--config", str(HERE / "forwarder.toml"), "--check-config"]) == 0


def made(ending: str, out: Path) -> bool:
    """Let a process of its own measure and end; return whether it ended at a moment when nothing was on its way."""
    work = out / ending
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    code = subprocess.run([sys.executable, __file__, "run", ending], cwd=work, timeout=60).returncode
    assert code == (0 if ending == "stopped" else -signal.SIGKILL), code
    shutil.copytree(work, looked_at := out / "looked-at")
    (spool,) = (looked_at / "spool").glob("*.sqlite")
    with closing(sqlite3.connect(spool)) as database:
        taken = database.execute("SELECT count(*) FROM taken").fetchone()[0]
        print(ending, database.execute("SELECT place, count(*), sum(points) FROM batches GROUP BY place").fetchall())
        print([key for (key,) in database.execute("SELECT key FROM notes")])
    shutil.rmtree(looked_at)
    with tarfile.open(out / f"{ending}.tar.xz", "w:xz", preset=9) as archive:
        for path in sorted(work.rglob("*")):
            if path.is_file() and path.name != "windows":
                archive.add(path, str(path.relative_to(work)), filter=anonymous)
    shutil.rmtree(work)
    return not taken


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def measure(ending: str) -> None:
    """Measure all but the open interval with every remote destination away, and the files, too, from the third on."""
    from metricslib.testing import ManualClock

    known = socket.getaddrinfo

    def resolve(host: Any, *more: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return known(host, *more, **options)

    socket.getaddrinfo = resolve
    clock = ManualClock(inputs.START)
    Path("windows").write_text("where a directory should be")
    if ending == "program":
        measure_in_program(clock)
    else:
        measure_in_forwarder(clock, ending)
    if ending != "stopped":
        os.kill(os.getpid(), signal.SIGKILL)


def measure_in_forwarder(clock: Any, ending: str) -> None:
    from forwarder.config import Config
    from forwarder.daemon import Daemon

    listen = ("tcp://127.0.0.1:0", "graphite://127.0.0.1:0", "forwarder+tcp://127.0.0.1:0")
    config = Config(
        listen=listen, to=inputs.TO, interval=inputs.INTERVAL, http="off", console="off", spool="spool", stop_timeout=1
    )
    daemon = Daemon(config, clock=clock, grace=0)
    daemon.start()
    lines, points, numbered = (int(address.rpartition(":")[2]) for address in daemon.addresses)
    for part, slot in enumerate(inputs.SLOTS[:4]):
        send(lines, "\n".join(slot) + "\n")
        send(points, inputs.relayed(part))
        send(numbered, inputs.numbered(part))
        if part < 3:
            clock.advance(inputs.INTERVAL)
            daemon.flusher.tick()
        if part == 1:
            until_written(daemon.flusher)
            Path("data").rename("data.written")
            Path("data").write_text("where a directory should be")
    clock.advance(5)
    daemon.flusher.flush(0.5)
    if ending == "stopped":
        assert daemon.stop()
    Path("data").unlink()
    Path("data.written").rename("data")


def until_written(flusher: Any) -> None:
    while any(s.waiting_batches for s in flusher.status().destinations if s.label.startswith("whisper")):
        flusher.flush(0.1)


def send(port: int, text: str) -> None:
    """Return when all of it was read."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def measure_in_program(clock: Any) -> None:
    from metricslib import Flusher, Registry

    registry = Registry(clock=clock)
    flusher = Flusher(registry, inputs.PROGRAM, interval=inputs.INTERVAL, prefix="shop", spool="spool", own="")
    flusher.start()
    for part in range(4):
        inputs.use(registry, part)
        if part < 3:
            clock.advance(inputs.INTERVAL)
            flusher.tick()
    clock.advance(5)
    flusher.flush(0.5)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        measure(sys.argv[2])
    else:
        main(Path(sys.argv[1]).absolute())
