"""Whatever happens between senders and a forwarder, in whatever order, each measurement is committed exactly once.

The real parts without their sockets: what destinations encode is cut anywhere, read by old connections and new ones,
taken, cut into windows, committed with its notes, lost in crashes, answered or not.
"""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.aggregator import Aggregator
from forwarder.dedup import Deduplicator
from metricslib import Registry
from metricslib.delivery import open_destination
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Flush, Window
from metricslib.wire.numbered import Reader

STEPS = st.sampled_from(["measure", "connect", "read", "read", "flush", "tick", "answer", "reset", "drop", "crash"])
CHOICES = st.integers(0, 1 << 30)


class Program:
    """A program with a spool of batches that were not answered yet."""

    def __init__(self) -> None:
        self.destination = open_destination("forwarder+tcp://host", Naming())
        self.waiting: list[tuple[str, int, bytes, int]] = []  # by sender, number, payload and measurements
        self.measured = self.dropped = 0

    def measure(self, times: int) -> None:
        fresh = Window(0, 10, 10, counters={"hits": times})
        for batch in self.destination.encode(Flush(fresh, fresh)):
            (read,) = Reader().feed(batch.payload)
            self.waiting.append((read.sender, read.number, batch.payload, times))
        self.measured += times

    def inherit(self, dead: "Program") -> None:
        """Take over what a dead program left behind."""
        self.waiting += dead.waiting
        self.measured, self.dropped = self.measured + dead.measured, self.dropped + dead.dropped

    def drop(self) -> None:
        if self.waiting:
            self.dropped += self.waiting.pop(0)[3]

    def answered(self, safe: dict[str, int]) -> None:
        self.waiting = [batch for batch in self.waiting if batch[1] > safe.get(batch[0], 0)]


class Connection:
    """What is on its way to the forwarder, and what that has read of it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.unread = b"".join([payload for _, _, payload, _ in program.waiting])
        self.reader = Reader()


class World:
    """A forwarder, its disk, and programs that send to it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.notes: dict[str, bytes] = {}
        self.committed: Counter[str] = Counter()
        self.programs = [Program(), Program()]
        self.safe: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """Start the forwarder, again after a crash: it knows what is on the disk."""
        self.connections: list[Connection] = []
        self.registry = Registry(clock=self.clock)
        self.senders = Deduplicator(clock=self.clock)
        self.aggregator = Aggregator(self.registry, clock=self.clock)
        self.senders.add_aggregator(self.aggregator)
        self.registry.add_source(self.senders)
        self.senders.listen(self.safe.update)
        self.senders.restore(self.notes)

    def read(self, connection: Connection, size: int) -> None:
        chunk, connection.unread = connection.unread[:size], connection.unread[size:]
        for batch in connection.reader.feed(chunk):
            self.senders.take(batch, self.aggregator)
        assert not connection.reader.broken

    def commit(self, flush: Flush) -> None:
        for key, note in self.senders.notes(flush, closes=True).items():
            if note is None:
                self.notes.pop(key, None)
            else:
                self.notes[key] = note
        self.committed.update({key: int(count) for key, count in flush.delta.counters.items()})
        self.senders.committed(flush)

    def step(self, step: str, choice: int) -> None:
        program = self.programs[choice % len(self.programs)]
        connection = self.connections[choice % len(self.connections)] if self.connections else None
        match step:
            case "measure":
                program.measure(choice % 9 + 1)
            case "connect":
                self.connections.append(Connection(program))
            case "read" if connection:
                self.read(connection, choice % 200)
            case "reset" if connection:
                self.connections.remove(connection)
            case "flush":
                self.registry.snapshot()  # which collects, and must change nothing
                self.commit(self.registry.flush(self.end(), 10))
            case "tick":
                self.clock.advance(10)
                self.commit(self.registry.tick(self.end(), 10))
            case "answer":
                program.answered(self.safe)
            case "drop" if choice % 4 == 0:
                program.drop()
            case "crash":
                self.start()

    def end(self) -> int:
        return (int(self.clock.time()) // 10 + 1) * 10

    def settle(self) -> None:
        """Let everything that waits be sent, read and answered; what is old may come once more, and last."""
        old = self.connections
        heir = Program()
        for program in self.programs:
            heir.inherit(program)
        for connection in (Connection(heir), *old):
            self.read(connection, len(connection.unread))
        self.step("tick", 0)
        heir.answered(self.safe)
        assert not heir.waiting
        self.programs = [heir]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(STEPS, CHOICES), min_size=10, max_size=100))
def test_each_measurement_is_committed_once(steps):
    """What was measured is what was committed, less what a program itself dropped: that may have arrived or not."""
    world = World()
    for step, choice in steps:
        world.step(step, choice)
    world.settle()
    (program,) = world.programs
    assert program.measured - program.dropped <= world.committed["hits"] <= program.measured
