"""Hints for users of other metrics libraries: for a name of another library, the equivalent in this one.

Using such a name or keyword argument raises an error that shows the right line of code. The tables below contain these
lines. :class:`Hinted` is the metaclass of the classes with hints. It makes each wrong name a descriptor, because
``__getattr__`` would slow down every lookup of a right name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

__all__ = [
    "ATTRIBUTES",
    "MADE",
    "NAMES",
    "OPTIONS",
    "OPTIONS_OF",
    "VALUES",
    "Hinted",
    "missing",
    "nearest_choice",
    "unknown_option",
]

_START = 'metrics.start("graphite://graphite.example:2003", prefix="shop.{host}")'
_FLUSHER = 'metrics.Flusher(metrics.Registry(), "graphite://graphite.example:2003")'
_COUNT = "metrics.counter(name).inc(n)"
_SET = "metrics.gauge(name).set(value)"
_READ = "metrics.gauge(name, read=function)"
_OBSERVE = "metrics.timer(name).observe(seconds)"
_SIZE = "metrics.histogram(name).observe(value)"
_BLOCK = "with metrics.timer(name).time(): ..."
_SERVE = "metrics.serve(port=8128)"
_OWN = "metrics.Registry()  # the one behind metrics.counter() is metrics.default_registry"

NAMES: Mapping[str, str] = {
    # statsd
    "StatsClient": 'metrics.start("statsd://127.0.0.1:8125", prefix="shop")',
    "TCPStatsClient": 'metrics.start("statsd+tcp://127.0.0.1:8125", prefix="shop")',
    "UnixSocketStatsClient": 'metrics.start("statsd+unix:///run/statsd.sock", prefix="shop")',
    "incr": _COUNT,
    "decr": "metrics.counter(name).inc(-n)  # a value that goes up and down is a gauge: metrics.gauge(name).dec(n)",
    "timing": "metrics.timer(name).observe(seconds)  # seconds, not milliseconds",
    "set": f"{_SET}  # statsd's set is metrics.unique(name).add(member)",
    "pipeline": f"{_COUNT}  # without a pipeline: calls add up in memory, and a thread sends them",
    # datadog
    "initialize": _START,
    "statsd": 'metrics.start("statsd://127.0.0.1:8125")',
    "DogStatsd": 'metrics.start("statsd://127.0.0.1:8125")',
    "increment": _COUNT,
    "decrement": "metrics.gauge(name).dec(n)",
    # prometheus_client
    "Summary": "metrics.timer(name)  # or, for values that are not durations: metrics.histogram(name)",
    "Info": "metrics.gauge(name, tags={'version': '1.0'}).set(1)",
    "Enum": "metrics.gauge(name, tags={'state': 'running'}).set(1)",
    "CollectorRegistry": _OWN,
    "REGISTRY": "metrics.default_registry",
    "start_http_server": _SERVE,
    "start_wsgi_server": _SERVE,
    "make_wsgi_app": "metrics.view.wsgi()  # for Flask: metrics.view.blueprint()",
    "generate_latest": "metrics.serve(port=8128)  # a page that Prometheus can scrape, also as HTML and JSON",
    "push_to_gateway": "metrics.flush()  # start() has sent every interval since; this sends the open one",
    "pushadd_to_gateway": "metrics.flush()  # start() has sent every interval since; this sends the open one",
    "write_to_textfile": 'metrics.start("file:metrics.jsonl")',
    "track_inprogress": "@metrics.in_progress(name)",
    # scales and pyformance
    "IntStat": "metrics.counter(name)",
    "PmfStat": "metrics.timer(name)",
    "MeterStat": "metrics.counter(name)  # its rate is sent with it",
    "collection": "metrics.scope(name)",
    "MetricsRegistry": _OWN,
    "global_registry": "metrics.default_registry",
    "meter": "metrics.counter(name)  # its rate is sent with it",
    "meter_calls": "@metrics.counted(name)",
    "count_calls": "@metrics.counted(name)",
    "time_calls": "@metrics.timed(name)",
    "dump_metrics": "metrics.default_registry.snapshot()",
    "CarbonReporter": _START,
    "ConsoleReporter": 'metrics.start("console:")',
    # opentelemetry
    "get_meter": "metrics.scope(name)",
    "get_meter_provider": "metrics.default_registry",
    "set_meter_provider": _START,
    "MeterProvider": _OWN,
    "create_counter": "metrics.counter(name)",
    "create_up_down_counter": "metrics.gauge(name)  # inc() and dec()",
    "create_histogram": "metrics.histogram(name)  # for durations: metrics.timer(name)",
    "create_gauge": "metrics.gauge(name)",
    "create_observable_gauge": _READ,
    "create_observable_counter": _READ,
    # methods of instruments, called on the package
    "inc": _COUNT,
    "dec": "metrics.gauge(name).dec(n)",
    "add": "metrics.counter(name).inc(n)  # different members: metrics.unique(name).add(member)",
    "count": _COUNT,
    "mark": _COUNT,
    "observe": f"{_OBSERVE}  # a value that is not a duration: {_SIZE}",
    "record": f"{_OBSERVE}  # a value that is not a duration: {_SIZE}",
    "time": f"{_BLOCK}  # a function: @metrics.timed(name)",
    "timeit": "@metrics.timed(name)",
    "measure": "@metrics.timed(name)",
    "summary": "metrics.histogram(name)",
    "labels": "metrics.counter(name).tagged(route='/search').inc()",
    "tagged": "metrics.counter(name).tagged(route='/search').inc()",
    "tags": "metrics.scope(name, tags={'pool': 'main'})",
    "exceptions": "@metrics.count_exceptions(name)",
    "gauge_callback": _READ,
    "Client": _START,
    "configure": _START,
    "setup": _START,
    "init": _START,
    "connect": _START,
    "send": "metrics.flush()",
    "push": "metrics.flush()",
    "report": "metrics.flush()",
    "close": "metrics.stop()",
    "shutdown": "metrics.stop()",
    "collect": "metrics.default_registry.snapshot()",
    "get_registry": "metrics.default_registry",
    "blueprint": "metrics.view.blueprint()",
    "wsgi": "metrics.view.wsgi()",
    "asgi": "metrics.view.asgi()",
    "run_server": _SERVE,
}
"""Names that the package, a registry and a scope do not have."""

_VALUE = dict.fromkeys(("get", "get_value", "collect", "describe"), "metrics.default_registry.snapshot()")
_MORE = ("incr", "increment", "add", "mark", "update", "count")
_RECORD = ("record", "update", "add", "sample", "append")
_TIME = dict.fromkeys(("time", "timer", "timed"), _BLOCK)


def _labels(instrument: str) -> dict[str, str]:
    names = ("labels", "with_labels", "with_tags", "add_tags", "tag")
    return dict.fromkeys(names, f"{instrument}.tagged(route='/search')")


def _block(hint: str) -> dict[str, str]:
    return {"__enter__": hint, "__exit__": hint}


ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "Instruments": {
        **NAMES,
        "start": f"{_START}  # a registry of your own: metrics.Flusher(registry, ...).start()",
        "stop": "metrics.stop()",
        "flush": "metrics.flush()",
        "serve": "metrics.serve(registry=registry)",
        "snapshot": "metrics.default_registry.snapshot()",
    },
    "Counter": {
        **_labels("counter"),
        **_VALUE,
        **dict.fromkeys(_MORE, "counter.inc(n)"),
        **_TIME,
        **dict.fromkeys(("dec", "decr", "decrement"), "counter.inc(-n)  # a value that goes up and down is a gauge"),
        **dict.fromkeys(("set", "reset", "clear"), f"{_SET}  # a counter only adds up"),
        "value": _VALUE["get_value"],
        **dict.fromkeys(("observe", "record", "timing"), f"{_OBSERVE}  # a value that is not a duration: {_SIZE}"),
        "count_exceptions": "@metrics.count_exceptions(name)",
        "__call__": "@metrics.counted(name)",
        **_block(f"counter.inc()  # to time a block: {_BLOCK}"),
    },
    "Gauge": {
        **_labels("gauge"),
        **_VALUE,
        **dict.fromkeys(_MORE, "gauge.inc(n)"),
        **_TIME,
        **dict.fromkeys(("decr", "decrement", "sub"), "gauge.dec(n)"),
        **dict.fromkeys(("observe", "record", "update", "value", "gauge"), "gauge.set(value)"),
        "set_function": _READ,
        "set_to_current_time": "import time; gauge.set(time.time())",
        "track_inprogress": "@metrics.in_progress(name)",
        "__call__": "@metrics.in_progress(name)",
        **_block("gauge.inc()  # calls in progress: @metrics.in_progress(name)"),
    },
    "Timer": {
        **_labels("timer"),
        **_VALUE,
        **dict.fromkeys(("record", "update", "add", "send"), "timer.observe(seconds)"),
        "timing": "timer.observe(seconds)  # seconds, not milliseconds",
        **dict.fromkeys(("inc", "count", "mark"), "metrics.counter(name).inc()  # a timer counts its observations"),
        "set": _SET,
        **dict.fromkeys(("start", "stop"), "span = timer.time().start(); span.stop()"),
        **dict.fromkeys(("timeit", "timed", "decorate", "__call__"), "@metrics.timed(name)"),
        **_block("with timer.time(): ..."),
    },
    "Histogram": {
        **_labels("histogram"),
        **_VALUE,
        **dict.fromkeys(_RECORD, "histogram.observe(value)"),
        **_TIME,
        **dict.fromkeys(("inc", "count", "mark"), "metrics.counter(name).inc()"),
        "set": _SET,
        "__call__": "@metrics.timed(name)",
        **_block(_BLOCK),
    },
    "Unique": {
        **_labels("unique"),
        **_VALUE,
        **dict.fromkeys(("inc", "incr", "set", "update", "observe", "record", "append"), "unique.add(member)"),
        "__call__": "unique.add(member)",
        **_block("unique.add(member)"),
    },
}
"""By class: attributes that the class does not have."""

MADE: Mapping[str, str] = {
    name: f"metrics.{name.lower()}(name)" for name in ("Counter", "Gauge", "Timer", "Histogram", "Unique", "Scope")
}
"""By class that only a registry may instantiate: the equivalent for programs."""

VALUES: Mapping[str, str] = {
    "counter": _COUNT,
    "gauge": _SET,
    "timer": _OBSERVE,
    "histogram": _SIZE,
    "unique": "metrics.unique(name).add(member)",
}
"""By kind: the method that takes a value, for programs that pass it to the function that creates the instrument."""

_TAGGED = "metrics.counter(name).tagged(route='/search')"
_TAGS = "metrics.counter(name, tags={'route': '/search'})"
_EXACT = "metrics.start(percentiles=[50, 90, 99.9])  # there are no buckets to choose: any percentile can be sent"

OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(("labels", "labelnames", "labelvalues", "attributes", "dimensions"), f"{_TAGS}  # or: {_TAGGED}"),
    "multiprocess_mode": 'metrics.gauge(name, across="sum")  # or last, min, max, each',
    **dict.fromkeys(("buckets", "quantiles", "percentile", "objectives", "bins"), _EXACT),
    **dict.fromkeys(("rate", "sample_rate"), f"{_COUNT}  # every call is counted: nothing is sampled"),
    **dict.fromkeys(("value", "delta", "n"), f"{_COUNT}  # or set(value), observe(value), add(member)"),
    **dict.fromkeys(("callback", "callbacks", "function", "fn"), _READ),
    **dict.fromkeys(("host", "port", "server", "address", "url", "destination", "addr"), _START),
    **dict.fromkeys(("namespace", "subsystem"), 'metrics.scope(name).counter(name)  # or start(prefix="shop")'),
    **dict.fromkeys(("flush_interval", "period", "frequency"), "metrics.start(interval=10)"),
    **dict.fromkeys(("documentation", "description", "unit", "help"), "metrics.counter(name)  # Graphite knows none"),
    "registry": "metrics.Registry().counter(name)",
}
"""Keyword arguments of other libraries. An argument that is similar to an option of the call counts as misspelt."""

OPTIONS_OF: Mapping[str, Mapping[str, str]] = {
    "start": dict.fromkeys(
        ("host", "port", "server", "address", "addr", "hostname"),
        'metrics.start("statsd://127.0.0.1:8125")  # a URL has both; without a statsd server: graphite://HOST:2003',
    ),
    "serve": dict.fromkeys(("addr", "address", "server", "hostname"), 'metrics.serve(port=8128, host="127.0.0.1")'),
}
"""By call: keyword arguments that have another equivalent than in :data:`OPTIONS`."""


def missing(owner: str, name: str, hint: str | None, known: Iterable[str] = ()) -> AttributeError:
    """Return the error for an attribute that ``owner`` does not have. It shows the right line, or the nearest name."""
    return AttributeError(f"{owner} has no attribute {name!r}" + (f"; use {hint}" if hint else _nearest(name, known)))


def unknown_option(call: Callable[..., Any], wrong: Mapping[str, object]) -> TypeError:
    """Return the error for unknown keyword arguments of ``call``. It shows the nearest one, or the right line."""
    code = call.__code__
    known = [each for each in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if each != "self"]
    name = next(iter(wrong))
    called = call.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    hint = OPTIONS_OF.get(called, {}).get(name) or OPTIONS.get(name)
    advice = _nearest(name, known) or (f"; use {hint}" if hint else f"; it has {', '.join(known)}")
    return TypeError(f"{called}() has no option {name!r}{advice}")


def nearest_choice(value: object, choices: Sequence[str]) -> str:
    """Return advice on a value that is none of ``choices``: the nearest one, or all of them."""
    from difflib import get_close_matches  # here, because it takes longer to import than this module

    word = str(value).lower()
    near = [_CHOICES[word]] if word in _CHOICES else get_close_matches(word, choices, 1, 0.5)
    return f'did you mean "{near[0]}"?' if near else "must be " + " or ".join(f'"{choice}"' for choice in choices)


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # here, because it takes longer to import than this module

    near = get_close_matches(name, known, 1, 0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


_CHOICES: Mapping[str, str] = {
    # modes of prometheus_client for several processes
    "all": "each",
    "liveall": "each",
    "livesum": "sum",
    "livemin": "min",
    "livemax": "max",
    "mostrecent": "last",
    "livemostrecent": "last",
    # other words for the same
    "latest": "last",
    "total": "sum",
    "add": "sum",
    "worker": "each",
}


class _Guess:
    """A name that a class does not have, but that users of other libraries may try."""

    __slots__ = ("_hint", "_name")

    def __init__(self, name: str, hint: str) -> None:
        self._name = name
        self._hint = hint

    def __get__(self, instance: object, owner: type) -> Any:
        if what := _USES.get(self._name):
            raise TypeError(f"a {owner.__name__} {what}; use {self._hint}")
        raise missing(f"a {owner.__name__}", self._name, self._hint)


_USES = {
    "__call__": "cannot be called",
    "__enter__": "is not a context manager",
    "__exit__": "is not a context manager",
}


class Hinted(type):
    """The metaclass of classes with hints.

    ``dir()`` and ``help()`` do not show the wrong names, nor the private attributes of the base class of instruments.
    """

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> "Hinted":
        guesses = {guess: _Guess(guess, hint) for guess, hint in ATTRIBUTES.get(name, {}).items()}
        return super().__new__(cls, name, bases, {**guesses, **namespace})

    def __dir__(cls) -> list[str]:
        found: dict[str, object] = {}
        for each in reversed(cls.__mro__):
            if each.__name__ != "Cell":
                found.update(each.__dict__)
        return [name for name, value in found.items() if not isinstance(value, _Guess)]

    if not TYPE_CHECKING:  # type checkers use the parameters of __init__

        def __call__(cls, *args, **options):
            if cls.__name__ in MADE and (len(args) != 3 or isinstance(args[0], str)):
                raise TypeError(f"{cls.__name__}() cannot be called directly; use {MADE[cls.__name__]}")
            return super().__call__(*args, **options)
