"""What was delivered is looked for in Graphite's render API, and sent once more if it is not there."""

import contextlib
import json
import socket
import threading
import urllib.error
from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

import pytest

from metricslib.delivery import open_destination, several, verify
from metricslib.delivery.batch import Batch
from metricslib.delivery.cluster import open_destinations
from metricslib.delivery.verify import PENDING, Marker, Verifier
from metricslib.errors import InvalidDestination
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Flush, Window
from metricslib.wire import graphite

URL = "http://graphite/render"
START = 1_700_000_000


@pytest.fixture
def clock() -> ManualClock:
    """A clock that begins at the end of an interval."""
    return ManualClock(START)


class Api:
    """A render API over slots of ``step`` seconds."""

    def __init__(self, clock: ManualClock, step: int = 10) -> None:
        self.clock = clock
        self.step = step
        self.slots: dict[str, dict[int, float]] = {}
        self.asked: list[dict[str, list[str]]] = []
        self.error: Exception | None = None

    def store(self, *batches: Batch) -> None:
        """Take all points of batches, as carbon does."""
        for batch in batches:
            for path, value, stamp in graphite.decode(batch.payload):
                self.slots.setdefault(path, {})[stamp - stamp % self.step] = value

    def ask(self, url: str, timeout: float) -> bytes:
        """Answer as graphite-web does: every slot after ``from`` up to the one that holds ``until``, or now."""
        self.asked.append(parse_qs(urlsplit(url).query))
        if self.error:
            raise self.error
        query = self.asked[-1]
        first = int(query["from"][0]) // self.step * self.step + self.step
        last = min(int(query["until"][0]), int(self.clock.time())) // self.step * self.step
        times = range(first, max(last, first) + 1, self.step)
        return json.dumps(
            [
                {"target": path, "datapoints": [[self.slots[path].get(time), time] for time in times]}
                for path in query["target"]
                if path in self.slots
            ]
        ).encode()


class Look:
    """A verifier of an API, and what it wanted to be sent again."""

    def __init__(self, clock: ManualClock, step: int = 10) -> None:
        self.clock = clock
        self.api = Api(clock, step)
        self.kept, self.busy = True, False
        self.again: list[bytes] = []
        self.marker = Marker(Naming(prefix="shop"), seed=1)
        self.verifier = Verifier("graphite://host:2003", URL, self._resend, ask=self.api.ask, clock=clock)

    def _resend(self, lines: Collection[bytes]) -> Collection[bytes] | None:
        if self.busy:
            return None
        self.again += lines if self.kept else []
        return lines if self.kept else []

    def window(self, batches: int = 1, *, stamp: int | None = None, marker: Marker | None = None) -> list[Batch]:
        """Return the batches of a window, by default of the interval that ends now."""
        stamp = int(self.clock.time()) if stamp is None else stamp
        return (marker or self.marker).add([Batch(stamp, 1, b"a 1 %d\n" % stamp)] * batches)

    def deliver(self, *batches: Batch, arrive: bool = True) -> None:
        """Confirm batches; they are in Graphite if they ``arrive``."""
        if arrive:
            self.api.store(*batches)
        for batch in batches:
            self.verifier.delivered(batch)
        self.verifier.step()

    def wait(self, seconds: float) -> None:
        """Let time pass in steps of a second."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.verifier.step()


@pytest.fixture
def look(clock: ManualClock) -> Look:
    """A verifier of slots of ten seconds."""
    return Look(clock)


# -- the points


def test_each_batch_of_a_window_ends_with_a_point_of_ours(look: Look):
    """Its path says the place in the window, its stamp is the window's, its value a number that grows."""
    first, second = look.window(2)
    (third,) = look.window()
    points = [list(graphite.decode(batch.payload))[-1] for batch in (first, second, third)]
    assert [path.rpartition(".")[2] for path, _, _ in points] == ["0", "1", "0"]
    assert all(path.startswith("shop.metricslib.verify.") and path.count(".") == 4 for path, _, _ in points[:1])
    assert {stamp for _, _, stamp in points} == {START}
    values = [value for _, value, _ in points]
    assert [value - values[0] for value in values] == [0, 1, 2]
    assert all(value == int(value) < 2**53 for value in values)
    assert [batch.points for batch in (first, second, third)] == [2, 2, 2]


def test_a_destination_marks_its_batches_only_where_it_is_asked_to():
    """The point is counted like any other."""
    window = Window(START, START + 10, 10, counters={"a": 5})
    (plain,) = open_destination("graphite://host", Naming()).encode(Flush(window, window))
    (marked,) = open_destination(f"graphite://host?verify={URL}", Naming()).encode(Flush(window, window))
    assert marked.payload.startswith(plain.payload)
    assert b"metricslib.verify." in marked.payload[len(plain.payload) :]
    assert marked.points == plain.points + 1
    empty = Window(START, START + 10, 10)
    assert open_destination(f"graphite://host?verify={URL}", Naming()).encode(Flush(empty, empty)) == []


# -- the URL


@pytest.mark.parametrize("scheme", ["graphite", "graphite+tls", "graphite+pickle"])
@pytest.mark.parametrize("render", [URL, "https://graphite.example:8443/graphite/render?local=1"])
def test_one_carbon_takes_it(scheme: str, render: str):
    """Over each of its protocols that confirm."""
    assert open_destination(f"{scheme}://host:2003?verify={render}", Naming()).options.verify == render


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"graphite+udp://host?verify={URL}", "needs a connection to one carbon"),
        (f"statsd://host?verify={URL}", "needs a connection to one carbon"),
        (f"statsd+tcp://host?timeout=1s&verify={URL}", "needs a connection to one carbon"),
        (f"forwarder+tcp://host?verify={URL}", "needs a connection to one carbon"),
        (f"whisper:///data?verify={URL}", "needs a connection to one carbon"),
        (f"file:///data?verify={URL}", "needs a connection to one carbon"),
        ("graphite://host?verify=graphite/render", "must be the URL of Graphite's render API"),
        ("graphite://host?verify=", "must be the URL of Graphite's render API"),
        ("graphite://host?verify=ftp://graphite/render", "must be the URL of Graphite's render API"),
        ("graphite://host?verify=http:///render", "must be the URL of Graphite's render API"),
        ("graphite://host?verify=http://graphite", "must be the URL of Graphite's render API"),
        ("graphite://[::1]?verify=graphite/render", "write verify=http://[::1]/render, with the host of graphite-web"),
        ("graphite://host?verify=http://[::1/render", "write verify=http://host/render, with the host of graphite-web"),
        ("graphite://host?verify=http://me:secret%40graphite/render", "verify takes no user name and no password"),
        ("graphite://host?verify=http://me:secret@graphite/render", "verify takes no user name and no password"),
        ("graphite://host?timeout=1s&verify=http://me@graphite/render", "verify takes no user name and no password"),
        (f"statsd://host?verify={URL.replace('//', '//me:secret@')}", "takes no option verify"),
        ("graphite://host?verify=http://graphite:secret/render", "the port in verify must be a number; write verify="),
        (f"graphite://host?verify={URL}?a=1&b=secret", "a & in the value of verify is written %26"),
        ("graphite://host?verify=http://graphite/a%0Ab", "without white space"),
    ],
)
def test_anything_else_is_refused_with_the_reason(url: str, reason: str):
    """With the option and a right value, and the destination, not the API, as what is wrong; no secret is in it."""
    with pytest.raises(InvalidDestination) as error:
        open_destination(url, Naming())
    assert reason in str(error.value)
    assert error.value.url == f"{url.partition('?')[0]}?…"
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", [URL, f"graphite://host?verify={URL},{URL}"])
def test_an_api_is_no_destination(url: str):
    """It belongs into an option; a comma in there would separate."""
    with pytest.raises(InvalidDestination, match=r"graphite://HOST\?verify=http://HOST/render; a comma in it .* %2C"):
        [open_destination(one, Naming()) for one in several(url)]


@pytest.mark.parametrize("how", ["hash=carbon_ch", "pick=failover"])
def test_a_cluster_is_refused(how: str):
    """Which node has what, one API cannot say for sure."""
    with pytest.raises(InvalidDestination, match="takes no option verify, which needs one carbon"):
        open_destinations(f"graphite://a,b?{how}&verify={URL}", Naming())


def test_a_python_without_openssl_refuses_https(monkeypatch: pytest.MonkeyPatch):
    """Before the first interval, not at the first look."""
    monkeypatch.setattr("metricslib.delivery.urls.find_spec", lambda name: None)
    with pytest.raises(InvalidDestination, match="needs a Python with OpenSSL"):
        open_destination("graphite://host?verify=https://graphite/render", Naming())


# -- what is shown


def test_what_is_shown_is_verified(look: Look):
    """One request asks for all batches of a window, past every cache."""
    look.deliver(*look.window(3))
    assert look.verifier.verified is None
    look.wait(2)
    assert look.verifier.verified == START
    assert look.verifier.unverified == 0
    (query,) = look.api.asked
    assert len(query["target"]) == 3
    assert query["noCache"] == ["1"]
    assert query["format"] == ["json"]
    assert look.verifier.step() is None


def test_nothing_is_asked_where_nothing_was_delivered(look: Look):
    """Nor for batches without a point of ours."""
    look.verifier.delivered(Batch(START, 1, b"a 1 1700000000\n"))
    look.verifier.delivered(Batch(0, 1, b""))
    look.wait(100)
    assert look.api.asked == []
    assert look.verifier.verified is None


def test_what_is_not_shown_within_a_minute_is_sent_again_once(look: Look, caplog: pytest.LogCaptureFixture):
    """With a warning. When it is there then, it is verified, and counted nowhere."""
    lost, there = look.window(2)
    look.deliver(there)
    look.deliver(lost, arrive=False)
    look.wait(59)
    assert look.again == []
    assert look.verifier.verified is None, "the window is not whole"
    look.wait(10)
    assert look.again == [lost.payload[lost.payload.index(b"\n") + 1 :]]
    assert "Graphite does not show 2 points that it confirmed a minute ago; sending again, once" in caplog.text
    look.deliver(lost)
    look.wait(10)
    assert look.verifier.verified == START
    assert look.verifier.unverified == 0
    assert len(look.again) == 1


def test_what_is_not_shown_the_second_time_is_counted(look: Look, caplog: pytest.LogCaptureFixture):
    """It is not sent a third time, and what comes later is verified."""
    lost = look.window()[0]
    look.deliver(lost, arrive=False)
    look.wait(70)
    look.deliver(lost, arrive=False)
    look.wait(50)
    assert look.verifier.unverified == 0
    look.wait(20)
    assert len(look.again) == 1
    assert look.verifier.unverified == 2
    assert "Graphite does not show 2 points that it confirmed; not sent again" in caplog.text
    look.deliver(*look.window())
    look.wait(10)
    assert look.verifier.verified == START + 140


def test_what_the_resend_buffer_no_longer_has_is_counted(look: Look):
    """There is nothing that could be sent."""
    look.kept = False
    look.deliver(*look.window(), arrive=False)
    look.wait(70)
    assert (look.again, look.verifier.unverified) == ([], 2)


def test_what_cannot_be_sent_again_now_is_later(look: Look):
    """Something newer of its slot may be on its way."""
    look.busy = True
    look.deliver(*look.window(), arrive=False)
    look.wait(100)
    assert (look.again, look.verifier.unverified) == ([], 0)
    look.busy = False
    look.wait(10)
    assert len(look.again) == 1


def test_an_older_value_of_the_slot_is_no_proof_of_the_newer(look: Look):
    """A flush in mid-interval arrived, the whole interval did not: that is sent again."""
    early, whole = look.window()[0], look.window()[0]
    look.deliver(early)
    look.wait(10)
    look.deliver(whole, arrive=False)
    look.wait(70)
    assert look.again == [whole.payload[whole.payload.index(b"\n") + 1 :]]


def test_a_newer_value_of_the_slot_takes_the_place_of_the_older(look: Look):
    """The older one need not be shown any more."""
    early, whole = look.window()[0], look.window()[0]
    look.deliver(early, arrive=False)
    look.deliver(whole)
    look.wait(100)
    assert (look.verifier.verified, look.verifier.unverified, look.again) == (START, 0, [])


def test_the_minute_begins_when_the_interval_ends(look: Look):
    """Before that Graphite shows nothing of a flush in mid-interval."""
    stamp = START + 300
    look.deliver(*look.window(stamp=stamp), arrive=False)
    look.wait(350)
    assert look.again == []
    look.wait(20)
    assert len(look.again) == 1


def test_verified_up_to_waits_for_what_is_older(look: Look):
    """A backlog that goes out behind what is new has to be shown as well."""
    look.deliver(*look.window())
    old = look.window(stamp=START - 100)
    look.deliver(*old, arrive=False)
    look.wait(10)
    assert look.verifier.verified is None
    look.api.store(*old)
    look.wait(10)
    assert look.verifier.verified == START


def test_points_of_one_age_are_asked_for_together(look: Look):
    """Graphite answers from one archive, the one that reaches back to the oldest: a backlog has requests of its own."""
    look.deliver(*look.window(), *look.window(stamp=START - 10), *look.window(stamp=START - 90_000))
    look.wait(2)
    spans = [int(query["until"][0]) - int(query["from"][0]) for query in look.api.asked]
    assert len(spans) == 2
    assert max(spans) <= 300


def test_many_paths_are_asked_for_in_several_requests(look: Look):
    """A URL has a bound."""
    look.deliver(*look.window(120))
    look.wait(2)
    assert [len(query["target"]) for query in look.api.asked] == [50, 50, 20]
    assert look.verifier.verified == START


# -- what cannot be verified


@pytest.mark.parametrize("gap", [0, 3], ids=["between two looks", "before the first look"])
def test_slots_longer_than_the_interval_are_no_proof(clock, gap: int, caplog: pytest.LogCaptureFixture):
    """Later intervals overwrite earlier ones there. Nothing is sent again for that."""
    look = Look(clock, step=60)
    clock.advance(-clock.time() % 60)
    if gap:
        look.deliver(*look.window(), *look.window(stamp=int(clock.time()) + 10))
    else:
        for _ in range(3):
            look.deliver(*look.window())
            look.wait(10)
    look.wait(100)
    assert look.again == []
    assert "slots longer than the interval" in str(look.verifier.trouble)
    assert caplog.text.count("storage-schemas.conf") == 1


def test_slots_that_are_too_long_are_so_where_one_ends_too(clock):
    """The first interval of a slot has its value there, but the next overwrites it."""
    look = Look(clock, step=60)
    verified = None
    for window in range(15):
        look.deliver(*look.window())
        look.wait(10)
        if look.verifier.trouble:
            verified = verified or window
            assert look.verifier.verified in (None, START, START + 10)
        else:
            assert verified is None
    assert verified


def test_what_was_too_coarse_may_be_mended(clock):
    """Once each interval has a slot of its own, there is proof again."""
    look = Look(clock, step=60)
    for _ in range(20):
        look.deliver(*look.window())
        look.wait(10)
    assert look.verifier.trouble
    look.api.step, look.api.slots = 10, {}
    for _ in range(3):
        look.deliver(*look.window())
        look.wait(10)
    assert look.verifier.trouble is None
    assert look.verifier.verified == int(clock.time()) - 10


def test_slots_of_the_interval_are_long_enough_however_long_they_are(clock):
    """Where nothing before the stamp is shown, it is asked for from further back."""
    look = Look(clock, step=900)
    clock.advance(899)  # the slot began long ago
    look.deliver(*look.window())
    look.wait(70)
    assert (look.verifier.trouble, look.again) == (None, [])
    assert look.verifier.verified == START + 899


def test_a_path_that_another_process_writes_too_proves_nothing(look: Look, caplog: pytest.LogCaptureFixture):
    """Both would send again for ever."""
    other = Marker(Naming(prefix="shop"), seed=12345)
    look.deliver(*look.window())
    look.api.store(*look.window(marker=other))
    look.wait(70)
    assert (look.again, look.verifier.unverified) == ([], 2)
    assert "another process also writes shop.metricslib.verify." in caplog.text


def test_what_stands_in_an_earlier_slot_is_not_taken_for_ours(look: Look):
    """Where the API ends before the stamp, it shows nothing of it."""
    look.api.store(*look.window(stamp=START - 10, marker=Marker(Naming(prefix="shop"), seed=12345)))
    look.deliver(*look.window(), arrive=False)
    look.clock.advance(70)
    look.verifier._ask = lambda url, timeout: look.api.ask(url.replace(f"until={START + 1}", f"until={START - 1}"), 0)
    look.verifier.step()
    assert len(look.again) == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OSError("secret"), "OSError"),
        (urllib.error.URLError(ConnectionRefusedError("secret")), "ConnectionRefusedError"),
        (urllib.error.HTTPError(URL, 503, "secret", None, None), "HTTP 503"),  # type: ignore[arg-type]
        (ValueError("secret"), "ValueError"),
    ],
)
def test_an_api_that_does_not_answer_says_nothing(look: Look, answer: Exception, why: str, caplog):
    """Nothing is sent again, and what it shows when it is back is verified."""
    look.api.error = answer
    look.deliver(*look.window())
    look.wait(100)
    assert look.again == []
    assert look.verifier.trouble == f"http://graphite/render gives no answer to verify= ({why})"
    assert caplog.text.count("gives no answer") == 2, "at once, and after a minute"
    assert "secret" not in caplog.text
    look.api.error = None
    look.wait(10)
    assert look.verifier.trouble is None
    assert look.verifier.verified == START


def test_what_is_asked_for_in_vain_is_given_up(look: Look):
    """Ten minutes after it was delivered."""
    look.api.error = OSError()
    look.deliver(*look.window())
    look.wait(610)
    assert look.verifier.unverified == 2
    assert look.verifier.step() is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"\xff",
        b"{}",
        b"[]",
        b"[1]",
        b"null",
        b'[{"target": "x"}]',
        b'[{"target": "P", "datapoints": [[1]]}]',
        b'[{"target": "P", "datapoints": [[null, null]]}]',
        b'[{"target": "P", "datapoints": [["1", 1700000000], [1e999, 1700000010], [NaN, 1]]}]',
        b'[{"target": "P", "datapoints": []}]',
        b'[{"target": "P", "datapoints": [[1, 1e999]]}]',
        b"[" * 100_000,
    ],
)
def test_an_answer_may_be_anything(look: Look, body: bytes):
    """It is never taken for a proof."""
    batch = look.window()[0]
    path = list(graphite.decode(batch.payload))[-1][0]
    look.api.ask = lambda url, timeout: body.replace(b"P", path.encode())  # type: ignore[method-assign]
    look.verifier._ask = look.api.ask
    look.deliver(batch)
    look.wait(10)
    assert look.verifier.verified is None


def test_an_api_that_drips_is_no_answer(peer, over: threading.Event):
    """An answer has to be whole within the timeout, however often a byte of it comes."""

    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while not over.wait(0.01):
                connection.sendall(b" ")

    with pytest.raises(TimeoutError):
        verify._get(f"http://127.0.0.1:{peer(drip).port}/render", 0.2)


def test_an_answer_is_bounded(peer):
    """It is as long as somebody else likes."""

    def flood(connection: socket.socket) -> None:
        connection.recv(65536)
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b" " * (17 << 20))

    with pytest.raises(ValueError, match="too long"):
        verify._get(f"http://127.0.0.1:{peer(flood).port}/render", 20)


def test_two_threads_do_not_look_at_once(look: Look, over: threading.Event):
    """One that was stopped in the middle of a request, and the one that was started after it."""
    asked, answer = threading.Event(), threading.Event()

    def ask(url: str, timeout: float) -> bytes:
        asked.set()
        answer.wait(20)
        return look.api.ask(url, timeout)

    look.verifier._ask = ask
    look.deliver(*look.window())
    look.clock.advance(2)
    first = threading.Thread(target=look.verifier.step)
    first.start()
    assert asked.wait(20)
    look.clock.advance(10)
    second = threading.Thread(target=look.verifier.step)
    second.start()
    answer.set()
    first.join(20)
    second.join(20)
    assert len(look.api.asked) == 1
    assert look.verifier.verified == START


def test_what_is_looked_for_is_bounded(look: Look):
    """The oldest count as unverified."""
    look.api.error = OSError()
    for place in range(PENDING + 5):
        look.deliver(*look.window(stamp=START - 10 * place), arrive=False)
    look.verifier.step()
    assert look.verifier.unverified == 2 * 5
