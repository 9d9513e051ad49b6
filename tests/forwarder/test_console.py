"""The console's answers: statsd's texts to the letter, JSON that can be read, and no harm from whatever is typed."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.aggregator import Aggregator
from forwarder.console import Console, Health
from forwarder.stats import DaemonStats
from metricslib.registry import Registry
from metricslib.testing import ManualClock

CONFIG = {"interval": 10, "to": ["graphite://***@db:2003"], "naming": {"bins": [{"bounds": [1, float("inf")]}]}}


class Session:
    """A console over a registry that an aggregator feeds."""

    def __init__(self, **options):
        self.clock = ManualClock()
        self.registry = Registry(clock=self.clock)
        self.aggregator = Aggregator(self.registry, clock=self.clock)
        self.registry.add_source(self.aggregator)
        self.health = Health()
        start = self.clock.time()
        self.daemon_stats = DaemonStats(start, None, 0, None, None, 0.0, 0)
        self.console = Console(
            self.registry,
            self.health,
            daemon_stats=lambda: self.daemon_stats,
            config=lambda: CONFIG,
            clock=self.clock,
            **options,
        )

    def feed(self, *lines):
        self.aggregator.feed([line.encode() for line in lines])

    def ask(self, command):
        answer = self.console.answer(command)
        return answer if answer is None else "".join(answer)

    def values(self, command):
        text, end, rest = self.ask(command).partition("END\n\n")
        assert (end, rest) == ("END\n\n", "")
        return json.loads(text)


@pytest.fixture
def session():
    return Session()


def test_help(session):
    """Word for word."""
    assert session.ask("help") == (
        "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, health, config, quit\n\n"
    )


def test_stats(session):
    """Ages in whole seconds, the last flush in milliseconds and bytes, in statsd's order."""
    now = session.clock.time()
    session.clock.advance(100.4)
    session.daemon_stats = DaemonStats(now, now + 97, 5, now + 90, now + 60, 0.0123, 4096)
    assert session.ask("stats") == (
        "uptime: 100\nmessages.last_msg_seen: 3\nmessages.bad_lines_seen: 5\ngraphite.last_flush: 10\n"
        "graphite.last_exception: 40\ngraphite.flush_time: 12\ngraphite.flush_length: 4096\nEND\n\n"
    )


def test_stats_before_anything_happened(session):
    """As in statsd: the last message and flush were at the start, the last exception at the epoch."""
    session.clock.advance(7)
    stats = dict(line.split(": ") for line in session.ask("stats").splitlines() if ":" in line)
    assert stats["messages.last_msg_seen"] == stats["graphite.last_flush"] == stats["uptime"] == "7"
    assert stats["graphite.last_exception"] == str(round(session.clock.time()))


def test_values_of_the_open_interval(session):
    """Counters and timers since the last flush, gauges as they are; an entry a line, for grep."""
    session.feed("a:1|c", "b;x=y:2.5|c", "t:5|ms:7|ms", "g:-0|g", "g:-3|g", 'odd"\\:1|c')
    assert session.ask("counters") == '{\n  "a": 1,\n  "b;x=y": 2.5,\n  "odd": 1\n}\nEND\n\n'
    assert session.values("timers") == {"t": {"count": 2, "sum": 12, "mean": 6, "min": 5, "max": 7}}
    assert session.ask("gauges") == '{\n  "g": -3\n}\nEND\n\n'
    session.registry.tick(int(session.clock.time()), 10)
    assert session.values("counters") == {"a": 0, "b;x=y": 0, "odd": 0}
    assert session.values("timers") == {"t": {"count": 0}}
    assert session.values("gauges") == {"g": -3}


def test_nothing_is_an_empty_object(session):
    """As statsd prints it."""
    for command in ("counters", "timers", "gauges"):
        assert session.ask(command) == "{}\nEND\n\n"


def test_reading_disturbs_nothing(session):
    """However often values are asked for, the window has all of them."""
    session.feed("a:1|c", "t:5|ms", "g:3|g")
    for command in ("counters", "timers", "gauges", "stats", "config", "health") * 3:
        session.ask(command)
    window = session.registry.tick(int(session.clock.time()), 10).cumulative
    assert (window.counters, window.timers["t"].count, window.gauges) == ({"a": 1}, 1, {"g": 3})


def test_values_that_json_has_not(session):
    """A sum without end is told as text; what comes out is JSON."""
    session.feed("t:1e154|ms", "t:1e154|ms")
    assert session.values("timers")["t"]["count"] == 2
    assert session.values("config")["naming"] == {"bins": [{"bounds": [1, "inf"]}]}


def test_the_configuration_has_no_secrets_of_its_own_making(session):
    """It is what it is given, masked already."""
    assert session.values("config")["to"] == ["graphite://***@db:2003"]


# -- deleting

KINDS = [("delcounters", "counters", "c"), ("deltimers", "timers", "ms"), ("delgauges", "gauges", "g")]


@pytest.mark.parametrize(("delete", "show", "kind"), KINDS)
def test_deleting(session, delete, show, kind):
    """A line each: what was deleted, and for which name there was nothing."""
    session.feed(*(f"{name}:1|{kind}" for name in ("a", "a.b", "a.c", "ab", "z")))
    session.registry.tick(int(session.clock.time()), 10)
    assert session.ask(f"{delete} z no") == "deleted: z\nmetric no not found\nEND\n\n"
    assert session.ask(f"{delete} a.* a.b") == "deleted: a.b\ndeleted: a.c\nmetric a.b not found\nEND\n\n"
    assert list(session.values(show)) == ["a", "ab"]
    assert session.ask(f"{delete} z") == "metric z not found\nEND\n\n"


def test_deleting_nothing(session):
    """No name, no line; and between two spaces stands an empty name, as in statsd."""
    assert session.ask("delcounters") == "END\n\n"
    assert session.ask("delcounters  a") == "metric  not found\nmetric a not found\nEND\n\n"


def test_deleting_tagged_series(session):
    """Tags may be given in any order; ``prefix.*`` looks at the whole text."""
    session.feed("web.hits:1|c|#b:2,a:1", "web.hits:1|c|#a:2")
    assert session.ask("delcounters web.hits;b=2;a=1") == "deleted: web.hits;a=1;b=2\nEND\n\n"
    assert session.ask("delcounters web.*") == "deleted: web.hits;a=2\nEND\n\n"


def test_deleting_is_of_one_kind_and_others_stay(session):
    """A gauge of the same name is none of delcounters' business."""
    session.feed("x:1|c", "x:2|g", "constructor:1|c")
    assert session.ask("delcounters x") == "deleted: x\nEND\n\n"
    assert session.ask("delgauges constructor") == "metric constructor not found\nEND\n\n"
    assert (session.values("counters"), session.values("gauges")) == ({"constructor": 1}, {"x": 2})


def test_what_was_deleted_comes_back_with_the_next_value(session):
    """And from nothing."""
    session.feed("g:100|g")
    session.ask("delgauges g")
    session.feed("g:+5|g")
    assert session.values("gauges") == {"g": 5}


def test_deletions_are_logged(session, caplog):
    """What somebody took away, the log has."""
    session.feed("a.b:1|c")
    session.ask("delcounters a.*")
    assert "deleted 1 series of kind counter: a.b" in caplog.text


# -- health


def test_health(session):
    """It is told, and changed; another word changes nothing."""
    assert session.ask("health") == "health: up\n"
    assert session.ask("health DOWN") == "health: down\n"
    assert session.ask("health sideways") == "health: down\n"
    assert session.ask("health up really") == "health: up\n"


def test_what_changes_something_may_be_refused():
    """Then nothing changes, the answer says what would have to be configured, and it is counted."""
    allowed = False
    session = Session(may_change=lambda: allowed)
    session.feed("a:1|c")
    for command in ("delcounters a", "deltimers", "delgauges x", "health down", "health up"):
        assert session.ask(command).startswith("ERROR: not allowed")
    assert session.console.counts()["refused"] == 5
    assert session.ask("health") == "health: up\n"
    assert session.values("counters") == {"a": 1}
    allowed = True
    assert session.ask("delcounters a") == "deleted: a\nEND\n\n"


# -- what else is typed


@pytest.mark.parametrize(
    "command", ["", "HELP", "Stats", "foo", "counter", "sets", "del", "delcounter a", "delhelp", "GET / HTTP/1.1"]
)
def test_anything_else_is_an_error(session, command):
    """Case counts, and there are no abbreviations."""
    assert session.ask(command) == "ERROR\n"
    assert session.console.counts() == {"commands": 1, "unknown": 1}


def test_white_space_around_a_command_is_none_of_it(session):
    """Telnet ends lines with a carriage return."""
    assert session.ask(" health up\r") == "health: up\n"


def test_quit_hangs_up(session):
    """With whatever comes behind it."""
    assert session.ask("quit") is None
    assert session.ask("quit now") is None


def test_a_browser_is_hung_up_on(session):
    """A page can make its reader's browser post commands to loopback; before they come, there is its Host line."""
    assert session.ask("POST / HTTP/1.1") == "ERROR\n"
    assert session.ask("Host: 127.0.0.1:8126") is None
    assert session.console.counts()["http"] == 1


def test_a_failure_is_an_error_and_logged(session, monkeypatch, caplog):
    """The console goes on."""
    monkeypatch.setattr(session.registry, "snapshot", lambda: 1 / 0)
    assert session.ask("counters") == "ERROR\n"
    assert session.console.counts()["failed"] == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert session.ask("health") == "health: up\n"


@given(st.text() | st.tuples(st.sampled_from(["delgauges", "health", "stats", "deltimers"]), st.text()).map(" ".join))
def test_whatever_is_typed_is_answered(text):
    """Nothing raises, and every answer ends a line."""
    answer = Session().ask(text)
    assert answer is None or answer.endswith("\n")
