"""What measuring adds to a request, beside the framework alone and beside other instrumentation of the same framework.

Requests are passed to the application without a server or a socket, so that nothing but the framework and what measures
it is in the time. Each figure is the time of a request with the instrumentation, less that of a request without, taken
one right after the other.
"""

import asyncio
import io
import json
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from .child import both_implementations
from .measure import Samples, Scale, in_turn, seconds
from .rows import Row, at_most

__all__ = ["ROWS", "TITLE", "measure", "run"]

TITLE = "A measured request"
OURS = "metricslib"
_PEERS: Mapping[str, Sequence[str]] = {
    "Flask": ("prometheus_flask_exporter", "OpenTelemetry"),
    "Starlette": ("starlette_exporter", "OpenTelemetry"),
    "Django": ("django-prometheus", "OpenTelemetry"),
    "requests": ("OpenTelemetry",),
}
_GOAL = at_most(0.2)
_SHARE = 40
"""A round has so many times fewer requests than calls of an instrument."""


def _rows() -> Iterable[Row]:
    for implementation in ("C", "Python"):
        for framework, others in _PEERS.items():
            what = f"{implementation}: {framework}: {OURS} adds"
            yield Row(what, "µs", f"{implementation}: {framework} alone")
            for other in others:
                goal = _GOAL if implementation == "C" else None
                yield Row(what, "µs", f"{implementation}: {framework}: {other} adds", goal)


ROWS = tuple(_rows())


def run(scale: Scale) -> tuple[Samples, str]:
    """Return seconds a request."""
    return both_implementations("integrations", scale, "metricslib")


def measure(scale: Scale) -> Samples:
    """Return seconds a request, of the implementation that this process uses."""
    samples: Samples = {}
    for framework in _PEERS:
        # Instrumentation replaces functions of whole modules, so each framework has a process of its own.
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.integrations", framework, scale.name]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        samples |= json.loads(done.stdout)
    return samples


def _added(
    framework: str, bare: Callable[[], object], measured: Mapping[str, Callable[[], object]], scale: Scale
) -> Samples:
    """Return what each of ``measured`` takes longer than ``bare``.

    Both take turns request by request, and the median of each is compared, because what else the machine does takes
    longer than most of what is measured here.
    """
    count = max(20, scale.calls // _SHARE)

    def medians(work: Callable[[], object]) -> tuple[float, float]:
        pairs = [(seconds(bare), seconds(work)) for _ in range(count)]
        return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)

    def added(work: Callable[[], object]) -> Callable[[], float]:
        def cost() -> float:
            alone, whole = medians(work)
            return max(1e-9, whole - alone)

        return cost

    works = {f"{framework} alone": lambda: medians(bare)[1]}
    works |= {f"{framework}: {name} adds": added(work) for name, work in measured.items()}
    return in_turn(works, scale.rounds)


# -- WSGI and ASGI without a server


def _ask_wsgi(app: Any) -> Callable[[], object]:
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/users/7",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
    }

    def start(status: str, headers: object, error: object = None) -> Callable[[bytes], None]:
        assert status.startswith("200"), status
        return lambda data: None

    def ask() -> None:
        body = app({**environ, "wsgi.input": io.BytesIO()}, start)
        assert b"".join(body) == b"7"
        close = getattr(body, "close", None)
        if close:
            close()

    return ask


def _ask_asgi(app: Callable[..., Awaitable[None]], loop: asyncio.AbstractEventLoop) -> Callable[[], object]:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/users/7",
        "raw_path": b"/users/7",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 5),
        "server": ("localhost", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        assert message.get("status", 200) == 200

    return lambda: loop.run_until_complete(app(dict(scope), receive, send))


def _meter_provider() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    return MeterProvider([InMemoryMetricReader()])


# -- the frameworks


def _flask() -> tuple[Callable[[], object], Mapping[str, Callable[[], object]]]:
    from flask import Flask
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from prometheus_client import CollectorRegistry
    from prometheus_flask_exporter import PrometheusMetrics

    from metricslib.integrations import flask

    def app() -> Flask:
        made = Flask("shop")
        made.add_url_rule("/users/<int:number>", "user", lambda number: str(number))
        return made

    ours, exporter, otel = app(), app(), app()
    flask.instrument(ours)
    PrometheusMetrics(exporter, registry=CollectorRegistry(), group_by="url_rule")
    instrumentor: Any = FlaskInstrumentor()
    instrumentor.instrument_app(otel, meter_provider=_meter_provider())
    apps = {OURS: ours, "prometheus_flask_exporter": exporter, "OpenTelemetry": otel}
    return _ask_wsgi(app()), {name: _ask_wsgi(made) for name, made in apps.items()}


def _starlette() -> tuple[Callable[[], object], Mapping[str, Callable[[], object]]]:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette_exporter import PrometheusMiddleware

    from metricslib.integrations import asgi

    async def user(request: Any) -> PlainTextResponse:
        return PlainTextResponse(request.path_params["number"])

    def app() -> Starlette:
        return Starlette(routes=[Route("/users/{number}", user)])

    ours, exporter, otel = app(), app(), app()
    asgi.instrument(ours)
    exporter.add_middleware(PrometheusMiddleware, group_paths=True, skip_paths=[])
    otel.add_middleware(OpenTelemetryMiddleware, meter_provider=_meter_provider())
    loop = asyncio.new_event_loop()
    apps = {OURS: ours, "starlette_exporter": exporter, "OpenTelemetry": otel}
    return _ask_asgi(app(), loop), {name: _ask_asgi(made, loop) for name, made in apps.items()}


def _django() -> tuple[Callable[[], object], Mapping[str, Callable[[], object]]]:
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.urls import path

    urls: Any = type(sys)("urls")
    urls.urlpatterns = [path("users/<int:number>", lambda _, number: HttpResponse(str(number)))]
    sys.modules["urls"] = urls
    settings.configure(ROOT_URLCONF="urls", ALLOWED_HOSTS=["*"], MIDDLEWARE=[], LOGGING_CONFIG=None)
    django.setup()
    from opentelemetry.instrumentation.django import DjangoInstrumentor

    def handler(*middleware: str) -> WSGIHandler:
        settings.MIDDLEWARE = [*middleware]
        return WSGIHandler()

    bare, ours = handler(), handler("metricslib.integrations.django.middleware")
    first, last = (f"django_prometheus.middleware.Prometheus{place}Middleware" for place in ("Before", "After"))
    prometheus = handler(first, last)
    settings.MIDDLEWARE = []
    DjangoInstrumentor().instrument(meter_provider=_meter_provider())
    otel = handler(*settings.MIDDLEWARE)
    handlers = {OURS: ours, "django-prometheus": prometheus, "OpenTelemetry": otel}
    return _ask_wsgi(bare), {name: _ask_wsgi(made) for name, made in handlers.items()}


def _requests() -> tuple[Callable[[], object], Mapping[str, Callable[[], object]]]:
    """The transport below answers at once: what is left is what requests and what measures it do."""
    import requests
    from requests.adapters import HTTPAdapter

    adapter: Any = HTTPAdapter
    response = requests.Response()
    response.status_code = 200
    response._content = b""
    request = requests.Request("GET", "http://localhost/users/7").prepare()

    def answer(_adapter: HTTPAdapter, prepared: requests.PreparedRequest, **_more: object) -> requests.Response:
        response.request, response.url = prepared, "http://localhost/users/7"
        response.raw = None
        return response

    def session() -> requests.Session:
        return requests.Session()

    def ask(send: Callable[..., Any], adapter_send: Callable[..., Any], used: requests.Session) -> Callable[[], object]:
        def work() -> None:
            adapter.send = adapter_send
            send(used, request)

        return work

    from metricslib.integrations import requests as measured

    adapter.send = answer
    send = requests.Session.send
    measured.instrument()
    ours = adapter.send
    adapter.send = answer
    from opentelemetry.instrumentation.requests import RequestsInstrumentor

    RequestsInstrumentor().instrument(meter_provider=_meter_provider())
    otel = requests.Session.send
    works = {OURS: ask(send, ours, session()), "OpenTelemetry": ask(otel, answer, session())}
    return ask(send, answer, session()), works


if __name__ == "__main__":
    from .measure import SCALES

    framework, scale = sys.argv[1:]
    made = {"Flask": _flask, "Starlette": _starlette, "Django": _django, "requests": _requests}[framework]()
    json.dump(_added(framework, *made, SCALES[scale]), sys.stdout)
