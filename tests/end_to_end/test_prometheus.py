"""A real Prometheus, which scrapes a program and a forwarder as it does by default, has what was measured."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from metricslib import Flusher, Registry
from metricslib.view.server import Server
from metricslib.view.wsgi import wsgi
from tests.peers import Forwarder, eventually, free_port
from tests.sockets import send

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: program
    metrics_path: /
    static_configs: [{{targets: ["{program}"]}}]
  - job_name: forwarder
    metrics_path: /
    static_configs: [{{targets: ["{forwarder}"]}}]
"""


class Prometheus:
    """Debian's Prometheus, with its data in a directory of its own."""

    def __init__(self, root: Path, **targets: str) -> None:
        (root / "prometheus.yml").write_text(CONFIG.format(**targets))
        self.url = f"http://127.0.0.1:{free_port()}"
        command = ["prometheus", f"--config.file={root}/prometheus.yml", f"--storage.tsdb.path={root}/data"]
        command.append(f"--web.listen-address={self.url.removeprefix('http://')}")
        with (root / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def get(self, path: str, **parameters: str) -> object:
        """Return the data of an answer of its API; None as long as it does not answer."""
        try:
            answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=60)
        except requests.ConnectionError:
            return None
        return answer.json()["data"] if answer.status_code == 200 else None

    def values(self, query: str) -> dict[str, float]:
        """Return what a query finds, by the labels that we wrote, as JSON."""
        data = self.get("query", query=query)
        assert isinstance(data, dict)
        found = {}
        for each in data["result"]:
            labels = {name: value for name, value in each["metric"].items() if name not in ("job", "instance")}
            found[json.dumps(labels, sort_keys=True)] = float(each["value"][1])
        return found

    def health(self) -> dict[str, tuple[str, str]]:
        """Return the state of the last scrape of each job, and its error."""
        data = self.get("targets")
        targets = data["activeTargets"] if isinstance(data, dict) else []
        return {each["labels"]["job"]: (each["health"], each["lastError"]) for each in targets}


@pytest.fixture
def program() -> Iterator[tuple[Registry, Server]]:
    registry = Registry()
    server = Server(wsgi(Flusher(registry, interval=10, own=""), open=True))
    yield registry, server
    server.close()


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    forwarder = Forwarder("--listen", "tcp://127.0.0.1:0", "--interval", "1")
    yield forwarder
    forwarder.end(signal.SIGTERM)


def labelled(name: str, **labels: str) -> str:
    return json.dumps({"__name__": name, **labels}, sort_keys=True)


def test_prometheus_reads_what_was_measured(
    need: Any, tmp_path: Path, program: tuple[Registry, Server], forwarder: Forwarder
) -> None:
    need("prometheus")
    registry, server = program
    counted = {"/u": 5, "/search?q=a": 2.5}
    for route, count in counted.items():
        registry.counter("web.hits", tags={"route": route}).inc(count)
    registry.counter("web_hits").inc(7)
    registry.gauge("depth").set(-2.5)
    registry.unique("users").add("ann")
    for milliseconds, times in ((3, 80), (100, 20)):
        for _ in range(times):
            registry.timer("query").observe(milliseconds / 1000)
    registry.histogram("sent.bytes").observe(700)
    began = time.time()
    addresses = forwarder.ready()
    send(addresses["tcp"], "shop.hits:3|c\nshop.hits:4|c|#route:u\nshop.took:3|ms\nshop.took:100|ms\nlevel:12|g\n")
    targets = {"program": server.url, "forwarder": addresses["http"]}
    prometheus = Prometheus(tmp_path, **{job: url.removeprefix("http://").rstrip("/") for job, url in targets.items()})
    try:
        well = {"program": ("up", ""), "forwarder": ("up", "")}
        eventually(lambda: prometheus.health() == well, or_else=(tmp_path / "log").read_text())
        found: Mapping[str, float] = {}

        def has_all() -> bool:
            nonlocal found
            found = prometheus.values('{job=~".+"}')
            return labelled("shop_took_seconds_count") in found

        eventually(has_all)
        expected = {
            labelled("web_hits_total", route="-u"): 5,
            labelled("web_hits_total", route="-searchq=a"): 2.5,
            labelled("web_hits_counter_total"): 7,
            labelled("depth"): -2.5,
            labelled("users"): 0,
            labelled("query_seconds_count"): 100,
            labelled("query_seconds_sum"): pytest.approx(80 * 0.003 + 20 * 0.1),
            labelled("query_seconds_bucket", le="0.004"): 80,
            labelled("query_seconds_bucket", le="0.064"): 80,
            labelled("query_seconds_bucket", le="0.128"): 100,
            labelled("query_seconds_bucket", le="+Inf"): 100,
            labelled("sent_bytes_bucket", le="1024.0"): 1,
            labelled("sent_bytes_sum"): 700,
            labelled("shop_hits_total"): 3,
            labelled("shop_hits_total", route="u"): 4,
            labelled("shop_took_seconds_count"): 2,
            labelled("level"): 12,
        }
        assert {name: found.get(name) for name in expected} == expected
        assert found[labelled("web_hits_counter_created")] == pytest.approx(began, abs=60)
        quantiles = {q: prometheus.values(f"histogram_quantile({q}, query_seconds_bucket)") for q in (0.5, 0.9)}
        ((half,), (most,)) = (tuple(value.values()) for value in quantiles.values())
        assert 0.002 < half <= 0.004
        assert 0.064 < most <= 0.128
        metadata = prometheus.get("targets/metadata", match_target='{job="program"}')
        assert isinstance(metadata, list)
        types = {each["metric"]: (each["type"], each["unit"]) for each in metadata}
        assert types["web_hits"] == ("counter", "")
        assert types["query_seconds"] == ("histogram", "seconds")
        assert types["sent_bytes"] == ("histogram", "bytes")
        assert types["depth"] == types["users"] == ("gauge", "")
    finally:
        prometheus.process.terminate()
        prometheus.process.wait(60)
