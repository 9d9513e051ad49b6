"""The example shop as ``make run`` starts it: everything it answered is in Graphite's files, however it ends."""

import itertools
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import whisper

from metricslib.delivery.whisper import relative_path
from tests.peers import ROOT, eventually

from .conftest import Shop

ROUTES = ("-", "-search", "-checkout-product")
STATUSES = ("200", "201", "404", "409", "503")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "data")
    yield shop
    shop.kill()


def total(shop: Shop, path: str) -> float | None:
    """The sum over all slots of a path's file; None where there is none."""
    relative = relative_path(path)
    assert relative is not None
    file = shop.data / "whisper" / relative
    if not file.exists():
        return None
    until = int(time.time()) + 20
    found = whisper.fetch(str(file), shop.began - 20, until, now=until)
    assert found is not None
    (_, _, step), values = found
    assert step == 10
    return sum(value or 0 for value in values)


def answered(output: str) -> Counter[str]:
    """The requests answered, by status, as it printed them at its end."""
    (line,) = [line for line in output.splitlines() if line.startswith("answered: ")]
    return Counter({status: int(count) for count, status in re.findall(r"(\d+) × (\w+)", line)})


def is_whole(shop: Shop, code: int, output: str, errors: str) -> None:
    """The shop ended as it should, and its files hold each request that was answered, and no other."""
    assert code == 0
    assert re.fullmatch(r"forwarder: .* INFO forwarder: SIGTERM: stopping\n", errors), errors
    told = answered(output)
    found: Counter[str] = Counter()
    for route, status in itertools.product(ROUTES, STATUSES):
        count = total(shop, f"stats.counters.shop.requests.count;route={route};status={status}")
        found[status] += int(count or 0)
    assert +found == told
    times = [total(shop, f"stats.timers.shop.request.count;route={route}") for route in ROUTES]
    assert sum(time or 0 for time in times) == told.total()
    sold = total(shop, "stats.timers.shop.checkout.count")
    assert sold == told["201"] + told["409"] + told["503"]
    assert total(shop, "stats.histograms.shop.basket.items.count") == told["201"]
    received = total(shop, "stats.counters.statsd.pieces_received.count")
    assert received == total(shop, "stats.counters.statsd.pieces_aggregated.count")
    assert received
    assert total(shop, "stats.counters.statsd.bad_lines_seen.count") == 0


def test_it_ends_by_itself(tmp_path: Path):
    """After ``--seconds`` it ends with 0, and has printed its addresses and how many requests were answered."""
    shop = Shop(tmp_path / "data", "--seconds", "4")
    code, output, errors = shop.end()
    shown = ["the shop", "its metrics", "the forwarder", "its console", "statsd lines to", "whisper files in"]
    assert list(shop.addresses) == shown
    assert shop.addresses["whisper files in"] == f"{tmp_path}/data/whisper"
    assert answered(output)["200"] > 5
    is_whole(shop, code, output, errors)


def test_what_cannot_begin_is_told_in_one_line(tmp_path: Path):
    """An address that is taken, for one: nothing is left running, and the error is not that of a program gone wrong."""
    taken = tmp_path / "statsd.sock"
    taken.touch()
    command = [sys.executable, "-W", "error", "-m", "examples.shop", "--free-ports", "--data", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    told = f"forwarder: cannot listen on unix://{taken}: Address already in use\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)


def test_taken_ports_are_replaced_by_free_ones(tmp_path: Path):
    """It says so, one line each, and runs to its end."""
    ports = {}
    with ExitStack() as stack:
        for name in ("shop", "statsd lines", "console", "forwarder's page"):
            kind = socket.SOCK_DGRAM if name == "statsd lines" else socket.SOCK_STREAM  # over UDP alone is taken, too
            taken = stack.enter_context(socket.socket(socket.AF_INET, kind))
            taken.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            ports[name] = taken.getsockname()[1]
        script = f"import examples.shop.__main__ as shop; shop.PORTS = {ports!r}; shop.main()"
        command = [sys.executable, "-W", "error", "-c", script, "--data", str(tmp_path), "--seconds", "1"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    told = [f"port {port} for the {name}: Address already in use; taking a free one" for name, port in ports.items()]
    assert ended.stderr.splitlines()[:4] == told
    addresses = re.findall(r"//127\.0\.0\.1:(\d+)", ended.stdout)
    assert len(addresses) == 6
    assert not {*map(int, addresses)} & {*ports.values()}


def test_a_second_run_over_the_same_files_is_refused(tmp_path: Path):
    """In one line that says what to do: two forwarders would overwrite each other's files."""
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(tmp_path / "statsd.sock"))
        first.listen()
        command = [sys.executable, "-W", "error", "-m", "examples.shop", "--free-ports", "--data", str(tmp_path)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    told = f"another run uses {tmp_path}: end it, or take another directory: make run ARGS='--data other'\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)


def test_a_shop_whose_port_is_taken_says_so(tmp_path: Path):
    """In one line, too."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "examples.shop.server", str(port), f"file://{tmp_path}/x"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    told = f"the shop cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)


def test_ctrl_c_writes_the_last_interval(shop: Shop):
    """SIGINT to the whole group, as a terminal sends it, ends traffic, shop and forwarder in this order: all that was
    answered until then is in the files.
    """
    eventually(lambda: requests_handled(shop) > 20)
    is_whole(shop, *shop.end(signal.SIGINT))


def requests_handled(shop: Shop) -> int:
    rows = [row for row in page(shop.metrics)["series"] if row["name"] == "shop.requests"]
    return sum((row["total"] or {}).get("count", 0) + (row["open"] or {}).get("count", 0) for row in rows)


def test_both_pages_answer_while_it_runs(shop: Shop):
    """HTML and JSON, of the shop's series and of the forwarder's own."""
    for url, title, series in (
        (shop.metrics, "shop", "shop.requests"),
        (shop.forwarder, "forwarder", "statsd.pieces_received"),
    ):
        eventually(partial(shows, url, series))
        assert page(url)["title"] == title
        html = requests.get(url, headers={"Accept": "text/html"}, timeout=60)
        assert html.status_code == 200
        assert html.headers["Content-Type"] == "text/html; charset=utf-8"
        assert f"<title>{title}</title>" in html.text
        assert f"series/{series}" in html.text


def shows(url: str, series: str) -> bool:
    return series in {row["name"] for row in page(url)["series"]}


def page(url: str) -> dict[str, Any]:
    answer = requests.get(url, params={"format": "json"}, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found
