"""The daemon in this process: everything wired, on free ports, from a line on a socket to a value in Graphite."""

import dataclasses
import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from forwarder.config import Config, of_file, of_flags, settle
from forwarder.daemon import Daemon
from forwarder.listeners import Listener
from metricslib.errors import CannotListen, InvalidDestination
from metricslib.testing import ManualClock
from tests.peers import FOREVER, GraphitePeer, eventually, free_port, open_files
from tests.sockets import answer, connected, datagram_server, send


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


@pytest.fixture
def start(peer):
    """Start daemons that are stopped at the end of the test, before their peer, whatever happens."""
    daemons = []

    def start(listen=("udp://127.0.0.1:0",), to=(), *, interval=FOREVER, toml="", http="127.0.0.1:0", console="off"):
        to = (to,) if isinstance(to, str) else to
        given = {"listen": list(listen), "to": list(to), "interval": str(interval), "http": http, "console": console}
        flags = of_flags(given)
        daemon = Daemon(settle(flags, of_file(toml, "test")))
        daemons.append(daemon)
        daemon.start()
        return daemon

    yield start
    for daemon in daemons:
        daemon.stop(5)


def port_of(address):
    return int(address.rpartition(":")[2])


def page(daemon):
    return requests.get(daemon.addresses[-1] + "/?format=json", timeout=60).json()


def received(daemon):
    return page(daemon)["sections"]["Pieces"]["Received"]


# -- through it


def test_all_listeners_stop_at_once(start, monkeypatch):
    """Each takes up to half a second for senders to come to their end: nine of them take no longer than one."""
    order = []
    begin, wait = Listener.start_drain, Listener.drain
    monkeypatch.setattr(Listener, "start_drain", lambda *given: (order.append("begin"), begin(*given)))
    monkeypatch.setattr(Listener, "drain", lambda *given: (order.append("wait"), wait(*given))[1])
    daemon = start(["tcp://127.0.0.1:0"] * 3 + ["udp://127.0.0.1:0"])
    assert daemon.stop()
    assert order == ["begin"] * 4 + ["wait"] * 4


def test_what_programs_send_at_the_end_of_an_interval_is_of_that_interval(peer):
    """They end theirs at the same moment, so it comes a little after: each slot has one interval, not two or none."""
    clock = ManualClock(1_700_000_001)
    given = {"listen": ["tcp://127.0.0.1:0"], "to": [peer.url], "http": "off", "console": "off"}
    daemon = Daemon(settle(of_flags(given)), clock=clock)
    daemon.start()
    try:
        for late in (0.01, 0.3, 0.02, 0.4):
            clock.advance(10 - 1 + late)
            daemon.flusher.flush()  # ends the interval, if it may end yet
            assert answer(daemon.addresses[0], "a:1|c") == ""
            clock.advance(1 - late)
            assert daemon.flusher.flush()
    finally:
        daemon.stop(5)
    assert [peer.values["stats.counters.a.count", 1_700_000_000 + end] for end in (10, 20, 30, 40)] == [1, 1, 1, 1]


def test_every_kind_of_listener_ends_in_graphite(start, peer, tmp_path):
    """A counter that hears from UDP, TCP, IPv6 and both Unix sockets has the sum of all of them."""
    listen = [
        "udp://127.0.0.1:0",
        "tcp://127.0.0.1:0",
        "udp://[::1]:0",
        f"unix://{tmp_path}/s",
        f"unixgram://{tmp_path}/d",
    ]
    daemon = start(listen, peer.url)
    assert all(port_of(address) for address in daemon.addresses if "unix" not in address)
    for power, address in enumerate(daemon.addresses[:-1]):
        send(address, f"a:{10**power}|c\nt:{power + 1}|ms")
    eventually(lambda: received(daemon) == 10)
    assert daemon.flusher.flush()
    assert peer.at("stats.counters.a.count") == [11111]
    assert peer.at("stats.timers.t.upper_90") == [5]
    assert peer.at("stats.timers.t.sum") == [15]
    assert peer.at("stats.counters.statsd.pieces_aggregated.count") == [10]


def test_prefix_and_naming_come_from_the_configuration(start, peer):
    """The prefix is in front of what clients send, and not of the forwarder's own."""
    daemon = start(to=peer.url, toml='prefix = "shop"\npercentiles = [50]\n[naming]\nlegacy = true')
    send(daemon.addresses[0], "a:1|c\nt:5|ms")
    eventually(lambda: received(daemon) == 2)
    assert daemon.flusher.flush()
    assert peer.at("stats_counts.shop.a") == [1]
    assert peer.at("stats.timers.shop.t.upper_50") == [5]
    assert peer.at("stats_counts.statsd.pieces_received") == [2]


def test_graphite_points_pass_by(start, peer):
    """They keep path and stamp, whatever the prefix and the interval are."""
    daemon = start(["graphite://127.0.0.1:0"], peer.url, toml='prefix = "shop"')
    send(daemon.addresses[0], "a.b;x=y 1.5 1700000000\nbad\n")
    eventually(lambda: peer.values.get(("a.b;x=y", 1_700_000_000)) == 1.5)
    assert page(daemon)["sections"]["Graphite points"] == {"Received": 2, "Relayed": 1, "Bad": 1, "Dropped": {}}


def test_caps_come_from_the_configuration(start):
    """What is over a cap is counted, and shown."""
    daemon = start(toml="max_series = 10\nmax_tag_sets = 1")
    send(daemon.addresses[0], "a;x=1:1|c\na;x=2:2|c\na;x=3:4|c")
    eventually(lambda: received(daemon) == 3)
    counters = daemon.registry.snapshot().open.counters
    assert (counters["a;x=1"], counters["a;overflow=true"]) == (1, 6)
    assert page(daemon)["dropped"] == {"overflow": 2}


def test_the_budget_comes_from_the_configuration(start):
    """What is over it is counted, and the page says how much is used and allowed, shared by the listeners."""
    daemon = start(["udp://127.0.0.1:0", "tcp://127.0.0.1:0", "graphite://127.0.0.1:0"], toml="max_bytes = 131_072")
    send(daemon.addresses[0], "\n".join(f"k{n}:1|c" for n in range(100)))
    eventually(lambda: received(daemon) == 100)
    found = page(daemon)
    assert found["dropped"]["overflow"] > 40
    assert found["memory"]["total"]["allowed"] == 131_072
    assert 0 < found["memory"]["series"]["used"] <= found["memory"]["series"]["allowed"] == 65_536
    assert "of 64 KiB" in health_page(daemon)
    assert [one.feed._keys.size for one in daemon._inputs.inputs[:2]] == [16_384, 16_384]


def health_page(daemon):
    """What a browser gets."""
    return requests.get(f"{daemon.addresses[-1]}/health", headers={"Accept": "text/html"}, timeout=60).text


def test_without_a_destination_there_is_the_page(start, caplog):
    """The log says that nothing is sent, and the page shows everything."""
    caplog.set_level(logging.INFO, "forwarder")
    daemon = start()
    assert "only shown on the page" in caplog.text
    send(daemon.addresses[0], "hits:5|c\nbroken")
    eventually(lambda: received(daemon) == 2)
    assert "series/hits" in requests.get(daemon.addresses[-1], headers={"Accept": "text/html"}, timeout=60).text
    html = health_page(daemon)
    for text in ("forwarder", "Listeners", daemon.addresses[0], "Last bad lines", "broken"):
        assert text in html


def test_the_page_can_be_off(start):
    """Then no port is taken for it."""
    daemon = start(http="off")
    assert [address.partition(":")[0] for address in daemon.addresses] == ["udp"]


def test_idle_series_leave(start):
    """``expire`` is the registry's; 0 keeps all."""
    assert start(toml="expire = 5").registry.expire == 5
    assert start(toml="expire = 0").registry.expire is None
    assert start().registry.expire == 86_400


def test_several_threads_hear_one_udp_address(start):
    """Each has a socket and a table of its own; the address is named once, and all that they took is one sum."""
    daemon = start(toml="udp_threads = 3\n")
    assert len(daemon.addresses) == 2
    for number in range(60):  # from many ports, which the kernel shares out
        send(daemon.addresses[0], f"a:1|c\nk{number % 7}:{number}|ms\ng:{number}|g")
    eventually(lambda: received(daemon) == 180)
    listeners = page(daemon)["sections"]["Listeners"]
    assert [listener["Listener"] for listener in listeners] == [daemon.addresses[0]] * 3
    assert sum(listener["Packets"] for listener in listeners) == 60
    window = daemon.registry.tick(10, 10).cumulative
    assert window.counters["a"] == 60
    assert sum(timer.count for timer in window.timers.values()) == 60


def test_a_small_receive_buffer_is_reported(start, caplog, monkeypatch):
    """The log names the sysctl and how much to ask for."""
    monkeypatch.setattr("forwarder.listeners.udp.grow_buffer", lambda sock, wanted: 425_984)
    daemon = start()
    assert f"{daemon.addresses[0]}: the kernel limits the receive buffer to 425984 bytes" in caplog.text
    assert f"sysctl -w net.core.rmem_max={64 << 20}" in caplog.text


# -- the end


def test_stop_delivers_what_has_come(start, peer):
    """What the kernel had taken before the stop is in Graphite after it, under all kinds of listeners."""
    daemon = start(["udp://127.0.0.1:0", "tcp://127.0.0.1:0", "graphite://127.0.0.1:0"], peer.url)
    udp, tcp, graphite, _ = daemon.addresses
    for _ in range(1000):
        send(udp, "u:1|c")
    send(tcp, "t:1|c\n" * 10_000 + "t:5|c")
    send(graphite, "p 7 1700000000\n")
    assert daemon.stop()
    assert peer.at("stats.counters.u.count") == [1000]
    assert peer.at("stats.counters.t.count") == [10_005]
    assert peer.at("p") == [7]


@pytest.mark.parametrize("number", range(9))
def test_a_start_without_threads_leaves_nothing_bound_or_running(number, peer, tmp_path, monkeypatch):
    """At whichever of its threads that happens: page, destination, flusher, repeater, report, listeners, console."""
    listen = ["udp://127.0.0.1:0", "tcp://127.0.0.1:0", f"unix://{tmp_path}/s"]
    flags = {"listen": listen, "to": [peer.url], "repeat": ["udp://127.0.0.1:9"], "interval": "1000"}
    toml = of_file("[key_flush]\ninterval = 1000", "test")
    daemon = Daemon(settle(of_flags({**flags, "http": "127.0.0.1:0", "console": "127.0.0.1:0"}), toml))
    numbers, begin = iter(range(100)), threading.Thread.start
    before = set(threading.enumerate()), open_files()

    def start(thread):
        if next(numbers) == number:
            raise RuntimeError("can't start new thread")
        begin(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            daemon.start()
    eventually(lambda: (set(threading.enumerate()) <= before[0], open_files() <= before[1]) == (True, True))
    assert not list(tmp_path.iterdir())


def test_stop_ends_in_time_and_says_what_was_lost(start, caplog):
    """A destination that is away costs no more than the deadline."""
    daemon = start(to=f"graphite://127.0.0.1:{free_port()}")
    assert not daemon.stop(0.5)
    (record,) = [record for record in caplog.records if "not everything was delivered in time" in record.message]
    assert re.search(r"\d+ points for graphite://\S+ were in memory and are lost, cause shutdown$", record.message)


def test_after_stop_every_address_is_free(start, tmp_path):
    """The same configuration can be started again at once, also where clients left connections behind."""
    daemon = start(["udp://127.0.0.1:0", "tcp://127.0.0.1:0", f"unix://{tmp_path}/s"])
    with connected(daemon.addresses[1]) as client:
        client.sendall(b"a:1|c\n")
        eventually(lambda: received(daemon) == 1)
        daemon.stop()
        again = start(daemon.addresses[:-1], http=daemon.addresses[-1].removeprefix("http://"))
    assert again.addresses == daemon.addresses


def test_a_taken_address_leaves_nothing_bound(start, tmp_path):
    """The error names the URL, and what had been bound before is free again."""
    taken = start(["tcp://127.0.0.1:0"]).addresses[0]
    unix = f"unix://{tmp_path}/s"
    with pytest.raises(CannotListen, match=f"^cannot listen on {taken}: Address already in use$"):
        start([unix, taken])
    assert not (tmp_path / "s").exists()
    start([unix])


def test_a_taken_page_leaves_nothing_bound(start, tmp_path):
    """The page's address is bound like the others, before anything is read."""
    taken = start().addresses[-1]
    with pytest.raises(CannotListen, match=f"^cannot listen on {taken}: Address already in use$"):
        start([f"unix://{tmp_path}/s"], http=taken.removeprefix("http://"))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "x" * 64])
def test_a_host_that_is_none_is_an_error_like_any_other(start, host):
    """Whether nobody has the name or nobody can have it, for listeners and for the page."""
    with pytest.raises(CannotListen, match=f"^cannot listen on udp://{host}:1: ."):
        start([f"udp://{host}:1"])
    with pytest.raises(CannotListen, match=f"^cannot listen on http://{host}:1: ."):
        start(http=f"{host}:1")


def test_a_destination_that_cannot_work_is_refused_before_anything_is_bound():
    """Nothing was opened, so there is nothing to close."""
    with pytest.raises(InvalidDestination):
        Daemon(dataclasses.replace(Config(), to=("grafite://h",)))


# -- reload


def changed(daemon, **flags):
    """Return the daemon's configuration with other values."""
    return settle(of_flags(flags), of_file(daemon.config.as_toml(), "before"))


def test_a_reload_sends_the_open_interval_once_and_under_the_new_names(start, peer):
    """What came before and after it is in one slot under the new prefix, and nothing is under the old one."""
    daemon = start(to=peer.url, toml='prefix = "old"')
    send(daemon.addresses[0], "a:1|c\ng:5|g")
    eventually(lambda: received(daemon) == 2)
    daemon.change(changed(daemon, prefix="new"))
    send(daemon.addresses[0], "a:2|c")
    eventually(lambda: received(daemon) == 3)
    assert daemon.flusher.flush()
    assert peer.at("stats.counters.new.a.count") == [3]
    assert peer.at("stats.gauges.new.g") == [5]
    assert not any(".old." in path for path, _ in peer.values)
    assert page(daemon)["prefix"] == "new"


def test_a_reload_moves_to_other_destinations(start, peer):
    """Values go to the new destination from then on; points do too."""
    other = GraphitePeer()
    daemon = start(["udp://127.0.0.1:0", "graphite://127.0.0.1:0"], peer.url)
    send(daemon.addresses[0], "a:1|c")
    eventually(lambda: received(daemon) == 1)
    daemon.change(changed(daemon, to=[other.url]))
    send(daemon.addresses[1], "p 7 1700000000\n")
    eventually(lambda: other.at("p") == [7])
    assert daemon.stop()
    assert other.at("stats.counters.a.count") == [1]
    assert not peer.values
    other.close()


def test_a_reload_under_load_loses_nothing(start, peer):
    """Interval, prefix and percentiles change again and again while a client sends: the sum over all slots is exact."""
    daemon = start(["tcp://127.0.0.1:0"], peer.url, interval=1)
    sent = 0

    def client():
        nonlocal sent
        with connected(daemon.addresses[0]) as sock:
            while not enough.is_set():
                sock.sendall(b"a:1|c\nt:5|ms\n" * 50)
                sent += 50

    enough = threading.Event()
    thread = threading.Thread(target=client)
    thread.start()
    for turn in range(20):
        ticks = daemon.flusher.status().ticks
        daemon.change(changed(daemon, prefix=f"p{turn % 3}", interval=str(1 + turn % 2), percentiles=str(50 + turn)))
        if turn % 7 == 0:
            eventually(lambda before=ticks: daemon.flusher.status().ticks > before)
    enough.set()
    thread.join()
    # A client may send faster than lines are read, and what stop() still reads has a deadline.
    eventually(lambda: sum(one.feed.counts().aggregated for one in daemon._inputs.inputs) == 2 * sent, seconds=90)
    assert daemon.stop()
    prefixes = [f"stats.counters.p{number}.a.count" for number in range(3)]
    assert sum(sum(peer.at(path)) for path in prefixes) == sent
    assert sum(sum(peer.at(f"stats.timers.p{number}.t.count")) for number in range(3)) == sent
    assert sum(peer.at("stats.counters.statsd.pieces_aggregated.count")) == 2 * sent


def test_a_reload_that_cannot_work_changes_nothing(start, peer):
    """The error is the caller's, and the daemon goes on as it was."""
    daemon = start(to=peer.url)
    with pytest.raises(InvalidDestination):
        daemon.change(changed(daemon, to=["grafite://h"], prefix="new"))
    send(daemon.addresses[0], "a:1|c")
    assert daemon.stop()
    assert peer.at("stats.counters.a.count") == [1]


def test_a_reload_says_what_it_cannot_change(start, caplog):
    """Sockets, caps and the own prefix need a restart, and the log names them."""
    caplog.set_level(logging.INFO, "forwarder")
    daemon = start()
    daemon.change(changed(daemon, http="127.0.0.1:1", listen=["tcp://127.0.0.1:1"], interval="5"))
    assert "changed only by a restart: listen, http" in caplog.text
    assert "configuration reloaded; changed: interval" in caplog.text
    assert page(daemon)["interval"] == 5


def test_own_names_stay_after_a_reload(start, peer):
    """The own prefix needs a restart; until then its series have their old names, and still no prefix."""
    daemon = start(to=peer.url)
    daemon.change(changed(daemon, prefix="new", own_prefix="fw"))
    assert daemon.config.own_prefix == "statsd"
    assert daemon.stop()
    assert peer.at("stats.counters.statsd.pieces_received.count") == [0]


def test_expire_can_be_reloaded(start):
    """It is read at each tick."""
    daemon = start()
    config = settle(of_file("expire = 60", "f"), of_file(daemon.config.as_toml(), "before"))
    daemon.change(config)
    assert daemon.registry.expire == 60


def test_socket_files_have_the_configured_mode(start, tmp_path):
    """0600 unless configured otherwise."""
    start([f"unix://{tmp_path}/a"])
    start([f"unixgram://{tmp_path}/b"], toml='socket_mode = "0666"')
    modes = [Path(tmp_path, name).stat().st_mode & 0o777 for name in "ab"]
    assert modes == [0o600, 0o666]


# -- console and health


def ask(daemon, *commands):
    """Say commands to the daemon's console and return all that it answers."""
    address = next(address for address in daemon.addresses if address.startswith("console://"))
    return answer(address, "".join(f"{command}\n" for command in commands))


def test_the_console_tells_and_deletes(start, peer):
    """What it deletes is gone from the next window, and what it tells is what came."""
    daemon = start(to=peer.url, console="127.0.0.1:0")
    send(daemon.addresses[0], "a:1|c\nb:2|c\nbroken")
    eventually(lambda: received(daemon) == 3)
    stats = dict(line.split(": ") for line in ask(daemon, "stats").splitlines() if ": " in line)
    assert stats["messages.bad_lines_seen"] == "1"
    assert '"a": 1' in ask(daemon, "counters")
    assert ask(daemon, "delcounters a no") == "deleted: a\nmetric no not found\nEND\n\n"
    assert daemon.flusher.flush()
    assert peer.at("stats.counters.a.count") == []
    assert peer.at("stats.counters.b.count") == [2]
    stats = dict(line.split(": ") for line in ask(daemon, "stats").splitlines() if ": " in line)
    assert int(stats["graphite.flush_length"]) == len(peer.received)
    assert page(daemon)["sections"]["Console"]["commands"] == 4


def test_the_console_shows_the_configuration_without_secrets(start):
    """As it is in effect, after a reload too."""
    daemon = start(console="127.0.0.1:0")
    daemon.change(changed(daemon, prefix="new"))
    text, end, _ = ask(daemon, "config").partition("END\n\n")
    shown = json.loads(text)
    assert (shown["prefix"], shown["naming"]["namespace"], end) == ("new", "stats", "END\n\n")


def test_health_is_on_the_page_and_beside_it(start):
    """Said on the console, seen by load balancers and by people."""
    daemon = start(console="127.0.0.1:0")
    url = daemon.addresses[-1]
    assert requests.get(f"{url}/health", timeout=60).json() == {"health": "up"}
    assert ask(daemon, "health down") == "health: down\n"
    answer = requests.get(f"{url}/health", timeout=60)
    assert (answer.status_code, answer.json()) == (503, {"health": "down"})
    assert page(daemon)["sections"]["Health"] == {"Status": "down"}
    assert ask(start(console="127.0.0.1:0", toml='health = "down"'), "health") == "health: down\n"


def test_a_console_that_others_can_reach_changes_nothing(start):
    """Unless it is configured to; reading is allowed, and a reload decides anew."""
    daemon = start(console="0.0.0.0:0")
    assert ask(daemon, "health down").startswith("ERROR")
    assert ask(daemon, "delgauges x", "health").endswith("health: up\n")
    daemon.change(settle(of_file("console_admin = true", "f"), of_file(daemon.config.as_toml(), "before")))
    assert ask(daemon, "health down") == "health: down\n"


def test_a_taken_console_leaves_nothing_bound(start, tmp_path):
    """The console's address is bound like the others, before anything is read."""
    taken = next(address for address in start(console="127.0.0.1:0").addresses if address.startswith("console://"))
    with pytest.raises(CannotListen, match=f"^cannot listen on {taken}: Address already in use$"):
        start([f"unix://{tmp_path}/s"], console=taken.removeprefix("console://"))
    assert not (tmp_path / "s").exists()


# -- what else hears the listeners


def test_packets_are_repeated(start):
    """From every statsd listener, and not from those for Graphite's lines; the page and the own metrics tell it."""
    with datagram_server() as target:
        repeat = f"udp://127.0.0.1:{target.getsockname()[1]}"
        daemon = start(
            ["udp://127.0.0.1:0", "tcp://127.0.0.1:0", "graphite://127.0.0.1:0"], toml=f'repeat = "{repeat}"'
        )
        send(daemon.addresses[2], "p 7 1700000000\n")
        eventually(lambda: page(daemon)["sections"]["Graphite points"]["Received"] == 1)
        send(daemon.addresses[0], "a:1|c\nb:1|c")
        assert target.recv(100) == b"a:1|c\nb:1|c"
        send(daemon.addresses[1], "c:1|c\nd:1|c\n")
        assert target.recv(100) == b"c:1|c\nd:1|c"
        eventually(lambda: page(daemon)["sections"]["Repeater"][0]["Lines sent"] == 4)
        counters = daemon.registry.snapshot().open.counters
        assert [count for key, count in counters.items() if key.startswith("statsd.repeater.points_sent;")] == [4]


def test_the_busiest_keys_are_on_the_page(start, tmp_path):
    """If they are asked for; and in their file after the interval."""
    file = tmp_path / "keys.log"
    for interval in (FOREVER, 0.2):
        daemon = start(toml=f'[key_flush]\ninterval = {interval}\npercent = 50\nlog = "{file}"')
        send(daemon.addresses[0], "a:1|c\na:2|c\nb:1|c")
        if interval == FOREVER:
            eventually(lambda daemon=daemon: page(daemon)["sections"]["Busiest keys"][:1] == [ROW])
    eventually(lambda: file.exists() and file.read_text().endswith("count=2 key=a\n"))
    assert "Busiest keys" not in page(start())["sections"]


ROW = {"Key": "a", "Lines": 2, "Too many by at most": 0, "Percent": 100 * 2 / 3}


def test_a_reload_says_that_the_busiest_keys_need_a_restart(start, caplog):
    """Like sockets; an option of a table is told by its whole name."""
    daemon = start()
    daemon.change(settle(of_file("[key_flush]\ninterval = 5", "f"), of_file(daemon.config.as_toml(), "before")))
    assert "changed only by a restart: key_flush.interval" in caplog.text
    assert daemon.config.key_flush.interval == 0
