"""Deltas in numbered batches, sent until the forwarder has said that they are safe."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from metricslib.delivery import Deadline, Sender, Undelivered, open_destination
from metricslib.delivery.forwarder import ForwarderDestination
from metricslib.naming import Naming
from metricslib.window import Flush, Window
from metricslib.wire.numbered import LONGEST, Numbered, Reader, ack, greeting
from tests.peers import eventually

WHOLE = Window(0, 10, 10, counters={"a": 5, "idle": 0})
CUT = Flush(WHOLE, Window(0, 10, 10, counters={"a": 1}, gauges={"g": -5}))
NAMING = Naming(prefix="p")


def batches(payload: bytes) -> list[Numbered]:
    return Reader().feed(payload)


class Peer:
    """A forwarder that does what the test says; ``received`` is what came over each connection."""

    def __init__(self, peer, path: Path | None = None) -> None:
        self.received: list[bytes] = []
        self.answers: list[bytes] = []
        """What it says, one after the other, to each batch and to each ``sync``; it hangs up on an empty one."""
        self.greeting = greeting(10)
        self.over = threading.Event()
        one = peer(self._talk, path)
        self.url = f"forwarder+unix://{path}" if path else f"forwarder+tcp://127.0.0.1:{one.port}"

    def _talk(self, connection: socket.socket) -> None:
        self.received.append(b"")
        reader, heard = Reader(), 0
        connection.sendall(self.greeting)
        while chunk := connection.recv(65536):
            self.received[-1] += chunk
            heard += len(reader.feed(chunk)) + reader.syncs
            reader.syncs = 0
            while heard and self.answers:
                heard -= 1
                if not self.answers[0]:
                    del self.answers[0]
                    return
                connection.sendall(self.answers.pop(0))


@pytest.fixture(params=["forwarder+tcp", "forwarder+unix"])
def forwarder(request, peer, tmp_path):
    return Peer(peer, None if request.param == "forwarder+tcp" else tmp_path / "s")


def test_only_what_is_new_is_sent_and_numbered():
    """Idle series and what was sent before are not in it. Each batch has the next number of one sender."""
    destination = open_destination("forwarder+tcp://host", NAMING)
    ((first,), (second,)) = (batches(destination.encode(CUT)[0].payload) for _ in range(2))
    assert first.lines == b"p.a:1|c\np.g:0|g\np.g:-5|g\n"
    assert (first.number, second.number) == (1, 2)
    assert first.sender == second.sender
    (batch,) = destination.encode(CUT)
    assert (batch.stamp, batch.points, batch.windows) == (10, 3, 1)
    assert destination.encode(Flush(WHOLE, Window(0, 10, 10))) == []


def test_every_process_and_destination_is_a_sender_of_its_own(monkeypatch):
    """Two senders with one id would be taken for repeats of each other; a forked child counts from one again."""
    destination, other = (open_destination("forwarder+tcp://host", NAMING) for _ in range(2))
    ((mine,), (others,)) = (batches(one.encode(CUT)[0].payload) for one in (destination, other))
    monkeypatch.setattr(os, "getpid", lambda: -1)
    (childs,) = batches(destination.encode(CUT)[0].payload)
    assert len({mine.sender, others.sender, childs.sender}) == 3
    assert childs.number == 1


def test_a_large_window_goes_in_batches_that_a_forwarder_takes():
    """Each is far below its bound, and ends with a line."""
    many = Window(0, 10, 10, counters={f"some.counter.{number}": number + 1 for number in range(20_000)})
    made = open_destination("forwarder+tcp://host", NAMING).encode(Flush(WHOLE, many))
    read = [batch for one in made for batch in batches(one.payload)]
    assert [batch.number for batch in read] == list(range(1, len(made) + 1))
    assert max(len(batch.lines) for batch in read) < LONGEST / 3
    assert sum(batch.lines.count(b"\n") for batch in read) == sum(batch.points for batch in made) == 20_000
    assert [batch.windows for batch in made] == [0] * (len(made) - 1) + [1]
    assert all(batch.lines.endswith(b"\n") for batch in read)


def test_a_batch_is_delivered_when_it_is_safe(forwarder):
    """All that was sent, that is; what the forwarder has only read is not."""
    destination = open_destination(forwarder.url, NAMING)
    payload = b"".join(destination.encode(CUT)[0].payload for _ in range(3))
    sender = batches(payload)[0].sender
    forwarder.answers = [ack(sender, 1)[:5], ack(sender, 1)[5:] + ack(sender, 2), ack(sender, 3)]
    assert destination.deliver(payload, Deadline(20)) == {}
    assert forwarder.received == [payload]


def test_what_is_not_safe_remains(forwarder):
    """After a reset that is sent again which was not answered, and nothing else."""
    destination = open_destination(forwarder.url, NAMING)
    one, two, three = (destination.encode(CUT)[0].payload for _ in range(3))
    forwarder.answers = [ack(batches(one)[0].sender, 1), b""]
    with pytest.raises(Undelivered) as failure:
        destination.deliver(one + two + three, Deadline(20))
    assert (failure.value.remaining, failure.value.points, failure.value.lost) == (two + three, 6, {})
    forwarder.answers = [ack(batches(one)[0].sender, 3)]
    assert destination.deliver(failure.value.remaining, Deadline(20)) == {}
    assert forwarder.received[1] == two + three


def test_a_line_that_the_forwarder_cannot_read_is_not_sent(forwarder):
    """Its batch keeps its number, however little is left of it; each batch is counted once, when it is safe."""
    destination = open_destination(forwarder.url + "?max_line=10", NAMING)
    windows = [Window(0, 10, 10, counters=dict.fromkeys(names, 1)) for names in (("a", "x" * 10), ("y" * 10,), ("b",))]
    one, two, three = (destination.encode(Flush(WHOLE, window))[0].payload for window in windows)
    sender = batches(one)[0].sender
    forwarder.answers = [ack(sender, 1), b""]
    with pytest.raises(Undelivered) as failure:
        destination.deliver(one + two + three, Deadline(20))
    assert (failure.value.remaining, failure.value.lost) == (two + three, {"too_long": 1})
    forwarder.answers = [ack(sender, 3)]
    assert destination.deliver(two + three, Deadline(20)) == {"too_long": 1}
    heard = [(batch.number, batch.lines) for batch in batches(forwarder.received[1])]
    assert heard == [(2, b""), (3, b"p.b:1|c\n")]


def test_batches_of_two_senders_in_one_payload(forwarder):
    """A process that took over the spool of a dead one speaks for both, and each is answered for itself."""
    destination, dead = (open_destination(forwarder.url, NAMING) for _ in range(2))
    payloads = [one.encode(CUT)[0].payload for one in (dead, destination, dead)]
    sender, living = batches(payloads[0])[0].sender, batches(payloads[1])[0].sender
    forwarder.answers = [ack(sender, 2), b""]
    with pytest.raises(Undelivered) as failure:
        destination.deliver(b"".join(payloads), Deadline(20))
    assert failure.value.remaining == payloads[1]
    forwarder.answers = [ack(living, 1)]
    assert destination.deliver(payloads[1], Deadline(20)) == {}


def test_who_waits_for_the_delivery_hurries_it(forwarder):
    """A flush or the end of the program asks for an answer now, once; else the end of the interval brings it."""
    destination = open_destination(forwarder.url, NAMING)
    (batch,) = destination.encode(CUT)
    (read,) = batches(batch.payload)
    forwarder.answers = [b"ack other 1\n", ack(read.sender, 1)]
    deadline = Deadline(20)
    deadline.urgent = True
    assert destination.deliver(batch.payload, deadline) == {}
    assert forwarder.received == [batch.payload + b"sync\n"]


def test_a_sender_hurries_who_is_waited_for(forwarder):
    """In the middle of a delivery that would have taken to the end of the interval."""
    destination = open_destination(forwarder.url, NAMING)
    sender = Sender(destination)
    (batch,) = destination.encode(CUT)
    sender.start()
    sender.put(batch)
    eventually(lambda: forwarder.received == [batch.payload])
    forwarder.answers = [b"ack other 1\n", ack(batches(batch.payload)[0].sender, 1)]
    assert sender.wait_idle(20)
    assert forwarder.received == [batch.payload + b"sync\n"]
    assert sender.stop(5)


def test_an_answer_may_take_as_long_as_the_forwarder_says(forwarder):
    """Longer than the time-out, which is for getting so far; but no longer than there is time to stop."""
    forwarder.greeting = greeting(3600)
    destination = open_destination(f"{forwarder.url}?timeout=0.2s", NAMING)
    (batch,) = destination.encode(CUT)
    deadline = Deadline(destination.options.timeout)
    threading.Timer(0.5, deadline.cut, (0.1,)).start()
    began = time.monotonic()
    with pytest.raises(Undelivered, match="no answer in time"):
        destination.deliver(batch.payload, deadline)
    assert time.monotonic() - began > 0.5


@pytest.mark.parametrize("said", [b"220 mail.example ESMTP\r\n", b"forwarder 2 10\n", b"ack a 1\n"])
def test_what_answers_as_no_forwarder_gets_nothing(forwarder, said):
    """Another server at that address, or a forwarder of another protocol: everything waits."""
    forwarder.greeting = said
    destination = open_destination(forwarder.url, NAMING)
    (batch,) = destination.encode(CUT)
    with pytest.raises(Undelivered, match="the answer is not a forwarder's") as failure:
        destination.deliver(batch.payload, Deadline(20))
    assert failure.value.remaining == batch.payload


def test_what_says_nothing_gets_nothing(forwarder):
    """A statsd server, say, which would take the lines and never answer."""
    forwarder.greeting = b""
    destination = open_destination(forwarder.url, NAMING)
    (batch,) = destination.encode(CUT)
    with pytest.raises(Undelivered, match="no answer in time") as failure:
        destination.deliver(batch.payload, Deadline(0.2))
    assert failure.value.remaining == batch.payload
    assert forwarder.received == [b""]


def test_while_nobody_listens_everything_waits(refused_port: int, tmp_path: Path):
    """Nothing is lost."""
    for url in (f"forwarder+tcp://127.0.0.1:{refused_port}", f"forwarder+unix://{tmp_path}/s"):
        destination = open_destination(url, NAMING)
        (batch,) = destination.encode(CUT)
        with pytest.raises(Undelivered) as failure:
            destination.deliver(batch.payload, Deadline(5))
        assert (failure.value.remaining, failure.value.points) == (batch.payload, 3)


def test_what_waits_goes_in_one_piece(forwarder):
    """In order, as much as there is, so that a forwarder with a long interval does not hold up one with a short one."""
    destination = open_destination(forwarder.url, NAMING)
    waiting = Sender(destination)
    payloads = [destination.encode(CUT)[0] for _ in range(5)]
    waiting.put(*payloads)
    sender = batches(payloads[0].payload)[0].sender
    forwarder.answers = [ack(sender, 2), b""]
    waiting.step()
    held = waiting.queue.stats()
    assert (held.delivered, held.waiting_points, held.dropped) == (6, 9, {})
    assert isinstance(destination, ForwarderDestination)
    forwarder.answers = [ack(sender, 5)]
    waiting.hurry()
    waiting.step()
    held = waiting.queue.stats()
    assert (held.delivered, held.waiting_points, held.windows, held.dropped) == (15, 0, 5, {})
    assert [batch.number for text in forwarder.received for batch in batches(text)] == [1, 2, 3, 4, 5, 3, 4, 5]
