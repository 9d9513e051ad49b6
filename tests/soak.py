"""An hour of everything that goes wrong, and an account of every increment at its end: ``make soak``.

``python -m tests.soak [--only EVENT,…] [--pause SECONDS] SECONDS [SEED]``, as root on Linux. Four programs count: two
send numbered batches to a forwarder, two send straight to Graphite; all have spool directories. The forwarder and
Graphite (carbon) run beside them, in a network namespace and on a small file system of their own. By chance, one after
the other:

- the forwarder, carbon or a program is told to end, and starts again some seconds later,
- the forwarder or a program is killed (-9), or stopped for a while (SIGSTOP),
- carbon is killed (-9) with points in memory alone,
- the network is cut: nothing on it arrives, and nothing says so,
- the disk of the forwarder's spool is full,
- the clock is stepped forward, and back again.

At the end all is well for a while, everything ends in order, and carbon's files are read. What arrived of a program
that was never killed is what it made, to the last increment. A kill may cost what a program had not yet been told to be
safe by ``flush()``; the programs keep that account in a file that outlives them. Two things are not done because they
may lose points by design (see the guarantees): a kill of the forwarder while its page says that new data is not on
disk, which is so for half a minute after its disk was full, and one within a minute and a half after one of carbon.

Every program notes at which time it had made how much. Where something is missing, the account says since when, and
what happened at that time. ``--only`` and ``--pause`` then let the events in question follow each other more closely.
"""

import argparse
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import metricslib as metrics
from tests.end_to_end.conftest import Carbon
from tests.peers import ROOT, Forwarder, eventually

INTERVAL = 5
DISK = 4 << 20
"""Bytes of the file system for the forwarder's spool."""
SETTLED = 90.0
"""Seconds after a kill of carbon: longer than what was delivered is kept to be sent again."""
_TALLY = struct.Struct("qq")
_MADE = struct.Struct("dq")


# -- a program: python -m tests.soak program NAME URL SPOOL TALLY


def program(name: str, url: str, spool: str, tally: str) -> None:
    """Count until SIGTERM; keep in the file ``tally`` how much was made, and how much of it is safe."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    with (
        open(tally, "r+b") as file,
        mmap.mmap(file.fileno(), _TALLY.size) as shared,
        open(f"{tally}.history", "ab", buffering=0) as history,
    ):
        metrics.start(url, interval=INTERVAL, prefix=f"soak.{name}", spool=spool)
        hits = metrics.counter("hits")
        made = safe = 0
        due = time.monotonic() + 2
        while not ended:
            made += 1
            _TALLY.pack_into(shared, 0, made, safe)
            hits.inc()
            if made % 20 == 0:
                time.sleep(0.01)
            if time.monotonic() >= due:
                if metrics.flush(1):
                    safe = made
                history.write(_MADE.pack(time.monotonic(), made))
                due = time.monotonic() + 2
        metrics.stop(20)
        _TALLY.pack_into(shared, 0, made, made)


class Life:
    """A program that starts again whenever it has ended."""

    def __init__(self, name: str, url: str, folder: Path, clock: dict[str, str], *, mortal: bool) -> None:
        self.name = name
        self.mortal = mortal
        """Whether it may be killed."""
        self.made = self.at_risk = self.kills = 0
        self.history: list[tuple[float, int]] = []
        """Moments, by the monotonic clock, and how much was made until then."""
        self._url = url
        self._folder = folder
        self._clock = clock
        self._tally = folder / f"{name}.tally"
        self._history = folder / f"{name}.tally.history"
        self.begin()

    def begin(self) -> None:
        self._tally.write_bytes(_TALLY.pack(0, 0))
        self._history.write_bytes(b"")
        command = [sys.executable, "-W", "error", "-m", "tests.soak", "program", self.name, self._url]
        command += [f"{self._folder}/{self.name}", str(self._tally)]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **self._clock})
        eventually(lambda: _TALLY.unpack(self._tally.read_bytes())[0], or_else=f"{self.name} to count")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        code = self.process.wait(120)
        made, safe = _TALLY.unpack(self._tally.read_bytes())
        assert number == signal.SIGKILL or (code == 0 and made == safe), f"{self.name}: exit code {code}"
        self.history += [(when, self.made + then) for when, then in _MADE.iter_unpack(self._history.read_bytes())]
        self.made += made
        self.history.append((time.monotonic(), self.made))
        self.at_risk += made - safe
        self.kills += number == signal.SIGKILL


# -- what goes wrong


class Soak:
    """All that runs, in ``folder``, and what is done to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        self._step = folder / "step"
        self._set_clock(0)
        shim = folder / "stepped_clock.so"
        _run("cc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(ROOT / "tests" / "c" / "stepped_clock.c"))
        self._clock = {"LD_PRELOAD": str(shim), "STEPPED_CLOCK": str(self._step)}
        self._disk = folder / "disk"
        self._disk.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", str(self._disk))
        self.began = int(time.time())
        (folder / "carbon").mkdir()
        self.carbon = Carbon(folder / "carbon", INTERVAL)
        self.carbon.start()
        self._begin_forwarder()
        numbered = f"forwarder+unix://{folder}/programs.sock"
        self.programs = [
            Life("numbered", numbered, folder, self._clock, mortal=False),
            Life("numbered_killed", numbered, folder, self._clock, mortal=True),
            Life("straight", self.carbon.url, folder, self._clock, mortal=False),
            Life("straight_killed", self.carbon.url, folder, self._clock, mortal=True),
        ]
        self._carbon_killed = -SETTLED
        self.events: dict[str, int] = {}
        self._diary: list[tuple[float, str]] = []

    def _begin_forwarder(self) -> None:
        flags = ("--listen", f"forwarder+unix://{self._folder}/programs.sock", "--to", self.carbon.url)
        more = ("--interval", str(INTERVAL), "--spool", str(self._disk), "--stop-timeout", "5")
        self.forwarder = Forwarder(*flags, *more, environ=self._clock)
        self.forwarder.ready()
        eventually(self._on_disk, or_else="the forwarder to have a spool on disk")

    def _on_disk(self) -> bool:
        """Return whether the forwarder says that new data survives it."""
        return bool(self.forwarder.page()["destinations"][0]["on_disk"])

    def _forwarder_ends(self, number: signal.Signals) -> int:
        code = self.forwarder.end(number)
        for line in self.forwarder.lines:
            self._note(f"    {line.rstrip()}")
        return code

    def run(self, seconds: float, only: Sequence[str], pause: float) -> None:
        """Do one thing after the other, by chance, with pauses in which all may recover."""
        deeds: list[Callable[[], None]] = [
            self.forwarder_ends,
            self.forwarder_is_killed,
            self.forwarder_hangs,
            self.carbon_ends,
            self.carbon_is_killed,
            self.carbon_hangs,
            self.program_ends,
            self.program_is_killed,
            self.program_hangs,
            self.network_is_cut,
            self.disk_is_full,
            self.clock_is_stepped,
        ]
        deeds = [deed for deed in deeds if not only or deed.__name__ in only]
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            self._pause(pause / 4, pause)
            deed = self._chance.choice(deeds)
            settled = time.monotonic() >= self._carbon_killed + SETTLED
            if deed == self.forwarder_is_killed and not (settled and self._on_disk()):
                continue
            self._note(deed.__name__.replace("_", " "))
            deed()
            self._note("  over")
            self.events[deed.__name__] = self.events.get(deed.__name__, 0) + 1

    def _note(self, what: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {what}"
        self._diary.append((time.monotonic(), line))
        print(line, flush=True)

    def _pause(self, least: float, most: float) -> None:
        time.sleep(self._chance.uniform(least, most))

    def forwarder_ends(self) -> None:
        assert self._forwarder_ends(signal.SIGTERM) == 0
        self._pause(0, 5)
        self._begin_forwarder()

    def forwarder_is_killed(self) -> None:
        self._forwarder_ends(signal.SIGKILL)
        self._pause(0, 5)
        self._begin_forwarder()

    def forwarder_hangs(self) -> None:
        self._stopped(self.forwarder.process.pid)

    def carbon_ends(self) -> None:
        self.carbon.stop()
        self._pause(0, 15)
        self.carbon.start()

    def carbon_is_killed(self) -> None:
        self.carbon.stop(signal.SIGKILL)
        self._carbon_killed = time.monotonic()
        self._pause(5, 15)
        self.carbon.start()

    def carbon_hangs(self) -> None:
        assert self.carbon.process
        self._stopped(self.carbon.process.pid)

    def program_ends(self) -> None:
        life = self._chance.choice(self.programs)
        life.end()
        self._pause(0, 5)
        life.begin()

    def program_is_killed(self) -> None:
        life = self._chance.choice([life for life in self.programs if life.mortal])
        life.end(signal.SIGKILL)
        self._pause(0, 5)
        life.begin()

    def program_hangs(self) -> None:
        self._stopped(self._chance.choice(self.programs).process.pid)

    def _stopped(self, process: int) -> None:
        os.kill(process, signal.SIGSTOP)
        self._pause(1, 12)
        os.kill(process, signal.SIGCONT)

    def network_is_cut(self) -> None:
        _run("ip", "link", "set", "lo", "down")
        self._pause(1, 20)
        _run("ip", "link", "set", "lo", "up")

    def disk_is_full(self) -> None:
        block = self._disk / "block"
        with block.open("wb", buffering=0) as file:
            while _writes(file.fileno()):
                pass
        self._pause(5, 20)
        block.unlink()

    def clock_is_stepped(self) -> None:
        self._set_clock(self._chance.randrange(2, 30))
        self._pause(5, 20)
        self._set_clock(0)

    def _set_clock(self, seconds: int) -> None:
        with self._step.open("r+b" if self._step.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("q", seconds))  # in place, for the processes have it mapped

    # -- the account

    def account(self) -> list[str]:
        """End everything in order, print the account, and return what does not hold."""
        time.sleep(60)  # longer than the longest pause after a failure
        for life in self.programs:
            life.end()
        self.forwarder.ticks(3)
        assert self._forwarder_ends(signal.SIGTERM) == 0
        time.sleep(INTERVAL)  # carbon writes what it has
        self.carbon.stop()
        faults = []
        epoch = time.time() - time.monotonic()
        stamps = list(range(self.began // INTERVAL * INTERVAL, int(time.time()) + 60, INTERVAL))
        for life in self.programs:
            path = f"stats.counters.soak.{life.name}.hits.count"
            slots = dict(zip(stamps, self.carbon.read(path, stamps), strict=True))
            arrived = _sum(slots.values())
            holds = life.made - life.at_risk <= arrived <= life.made
            print(
                f"{life.name}: made {life.made:,}, arrived {arrived:,}, missing {life.made - arrived:,};"
                f" {life.kills} kills, at risk at these {life.at_risk:,}"
            )
            for when, lost in losses(life.history, slots, epoch):
                near = [line for then, line in self._diary if when - 60 <= then <= when + 60]
                at = time.strftime("%H:%M:%S", time.localtime(when + epoch))
                print(f"  {lost:,} were lost at about {at}, when this happened:", *near, sep="\n    ")
            if not holds:
                faults.append(f"the account of {life.name} does not balance")
        print("what happened:", ", ".join(f"{deed} {times}" for deed, times in sorted(self.events.items())))
        return faults

    def end(self) -> None:
        """Kill whatever runs."""
        for process in (self.forwarder.process, self.carbon.process, *(life.process for life in self.programs)):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        _run("umount", "--lazy", str(self._disk))


def losses(
    history: Sequence[tuple[float, int]], slots: Mapping[int, float | None], epoch: float
) -> list[tuple[float, int]]:
    """Return since which moments more was missing for good than before, and how much more.

    Something is always missing because it has not arrived yet. What is missing at all later times is missing for good.
    ``epoch`` is the time of the wall clock at which the monotonic clock was 0.
    """
    # A process that hung ends the slot of its last flush() with all that was made meanwhile: it is early, not more.
    arrived = [_sum(value for stamp, value in slots.items() if stamp - epoch <= when) for when, _ in history]
    missing = [max(0, made - there) for (_, made), there in zip(history, arrived, strict=True)]
    missing[-1] = history[-1][1] - _sum(slots.values())
    for_good = [*accumulate(reversed(missing), min)][::-1]
    losses: list[tuple[float, int]] = []
    for (when, _), before, now in zip(history, [0, *for_good], for_good, strict=False):
        if now > before:
            if losses and when < losses[-1][0] + 30:
                losses[-1] = losses[-1][0], losses[-1][1] + now - before
            else:
                losses.append((when, now - before))
    return losses


def _sum(values: Iterable[float | None]) -> int:
    return int(sum(value or 0 for value in values))


def _writes(descriptor: int) -> bool:
    try:
        return os.write(descriptor, bytes(4096)) > 0
    except OSError:  # it is full
        return False


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main(seconds: float, seed: int, only: Sequence[str], pause: float) -> int:
    print(f"{seconds:.0f} seconds, from seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # and what was started with it
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        soak = Soak(Path(folder), seed)
        try:
            soak.run(seconds, only, pause)
            faults = soak.account()
        finally:
            soak.end()
    print(*(f"FAULT: {fault}" for fault in faults) if faults else ("the account balances",), sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    if sys.argv[1] == "program":
        program(*sys.argv[2:])
    elif os.environ.get("IN_SOAK") != "1":  # in a network and with mounts of its own
        inside = 'ip link set lo up && exec "$@"'
        command = ["unshare", "--net", "--mount", "sh", "-c", inside, "--", sys.executable, "-m", "tests.soak"]
        os.execvpe(command[0], [*command, *sys.argv[1:]], {**os.environ, "IN_SOAK": "1"})
    else:
        parser = argparse.ArgumentParser("tests.soak")
        parser.add_argument("seconds", type=float)
        parser.add_argument("seed", type=int, nargs="?", default=random.randrange(1 << 32))
        parser.add_argument("--only", type=lambda names: names.split(","), default=[], help="the events, with commas")
        parser.add_argument("--pause", type=float, default=8.0, help="the longest pause between two, in seconds")
        given = parser.parse_args()
        sys.exit(main(given.seconds, given.seed, given.only, given.pause))
