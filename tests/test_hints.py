"""Wrong guesses get an error that shows the right line, and each of these lines can be run."""

import pydoc
import re
from types import SimpleNamespace

import pytest

import metricslib
from metricslib import Registry, hints
from metricslib.testing import ManualClock
from tests.implementations import packages

KINDS = ("Counter", "Gauge", "Timer", "Histogram", "Unique")


@pytest.fixture(params=["C", "Python"])
def metrics(request):
    """The package in one of its implementations."""
    try:
        return packages(request.param == "Python")["metricslib"]
    except ImportError:
        pytest.skip("the C implementation was not built")


def example(metrics, kind):
    if kind == "Instruments":
        return metrics.Registry().scope("db")
    return getattr(metrics.Registry(clock=ManualClock()), kind.lower())("x")


# -- the rows of the table: each name raises, and shows its line

ROWS = [(kind, name) for kind, rows in hints.ATTRIBUTES.items() for name in rows]


@pytest.mark.parametrize("name", hints.NAMES)
def test_a_name_that_the_package_does_not_have(metrics, name):
    """Its AttributeError shows the line."""
    with pytest.raises(AttributeError) as caught:
        getattr(metrics, name)
    assert str(caught.value) == f"metricslib has no attribute {name!r}; use {hints.NAMES[name]}"


@pytest.mark.parametrize(("kind", "name"), [row for row in ROWS if not row[1].startswith("__")])
def test_a_name_that_an_object_does_not_have(metrics, kind, name):
    """Of instruments, and of a registry and its scopes."""
    it = example(metrics, kind)
    with pytest.raises(AttributeError) as caught:
        getattr(it, name)
    told = f"a {type(it).__name__} has no attribute {name!r}; use {hints.ATTRIBUTES[kind][name]}"
    assert str(caught.value) == told


def test_a_registry_of_ones_own_has_the_same_hints(metrics):
    """Also in a subclass."""

    class Mine(metrics.Registry):
        pass

    with pytest.raises(AttributeError, match=r"a Mine has no attribute 'incr'; use metrics\.counter\(name\)\.inc\(n\)"):
        Mine().incr("web.hits")


@pytest.mark.parametrize("kind", KINDS)
def test_an_instrument_as_decorator_or_block(metrics, kind):
    """Both are a TypeError that shows the line."""
    it, rows = example(metrics, kind), hints.ATTRIBUTES[kind]
    with pytest.raises(TypeError) as caught:
        it(print)
    assert str(caught.value) == f"a {kind} cannot be called; use {rows['__call__']}"
    with pytest.raises(TypeError) as caught, it:
        pass
    assert str(caught.value) == f"a {kind} is not a context manager; use {rows['__enter__']}"


@pytest.mark.parametrize("name", hints.MADE)
@pytest.mark.parametrize("arguments", [(), ("c",), ("c", "what it counts"), ("c", "what it counts", ["route"])])
def test_a_class_that_only_a_registry_calls(metrics, name, arguments):
    """As prometheus_client has it: Counter("c", "what it counts", ["route"])."""
    with pytest.raises(TypeError) as caught:
        getattr(metrics, name)(*arguments)
    assert str(caught.value) == f"{name}() cannot be called directly; use {hints.MADE[name]}"


@pytest.mark.parametrize("name", hints.OPTIONS)
def test_an_option_that_other_libraries_have(metrics, name):
    """Of the function that makes a counter, and wherever else it is unknown."""
    with pytest.raises(TypeError) as caught:
        metrics.counter("c", **{name: 1})
    assert str(caught.value) == f"counter() has no option {name!r}; use {hints.OPTIONS[name]}"


@pytest.mark.parametrize(("call", "name"), [(call, name) for call, rows in hints.OPTIONS_OF.items() for name in rows])
def test_an_option_that_means_something_else_here(metrics, call, name):
    """An address is the page's to serve(), and a destination's to start()."""
    with pytest.raises(TypeError) as caught:
        getattr(metrics, call)(**{name: 1})
    assert str(caught.value) == f"{call}() has no option {name!r}; use {hints.OPTIONS_OF[call][name]}"


def test_a_span_as_decorator(metrics):
    """As prometheus_client has it."""
    span = example(metrics, "Timer").time()
    with pytest.raises(TypeError) as caught:
        span(print)
    assert str(caught.value) == "a Span cannot be called; to time a function, use @metrics.timed(name)"


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_in_the_place_of_tags(metrics, kind):
    """As in statsd's gauge(name, value)."""
    with pytest.raises(metrics.InvalidType) as caught:
        getattr(metrics.Registry(), kind.lower())("x", 5)
    assert f"; for a value use {hints.VALUES[kind.lower()]}, not 5 (int)" in str(caught.value)


def test_an_instrument_is_no_callback(metrics):
    """Though it has a __call__, for the sake of the hint."""
    registry = metrics.Registry()
    with pytest.raises(metrics.InvalidType, match="read must be a callable"):
        registry.gauge("depth", registry.counter("c"))


# -- slips of the finger

SLIPS = [
    ("start", {"perfix": "shop"}, "start() has no option 'perfix'; did you mean 'prefix'?"),
    ("start", {"percentile": 90}, "start() has no option 'percentile'; did you mean 'percentiles'?"),
    ("serve", {"prot": 1}, "serve() has no option 'prot'; did you mean 'port'?"),
    ("serve", {"x": 1}, "serve() has no option 'x'; it has port, host, registry, flusher, hosts, token, allow"),
    ("Registry", {"max_serie": 1}, "Registry() has no option 'max_serie'; did you mean 'max_series'?"),
    ("timed", {"slo": 1}, "timed() has no option 'slo'; did you mean 'slow'?"),
    ("counted", {"tag": {}}, "counted() has no option 'tag'; did you mean 'tags'?"),
    ("in_progress", {"nam": ""}, "in_progress() has no option 'nam'; did you mean 'name'?"),
    ("count_exceptions", {"type": KeyError}, "count_exceptions() has no option 'type'; did you mean 'types'?"),
]


@pytest.mark.parametrize(("call", "options", "told"), SLIPS)
def test_an_option_that_is_misspelt(metrics, call, options, told):
    """The nearest one is named."""
    with pytest.raises(TypeError) as caught:
        getattr(metrics, call)(**options)
    assert str(caught.value) == told


@pytest.mark.parametrize("kind", [*map(str.lower, KINDS), "scope"])
def test_a_misspelt_option_of_what_makes_instruments(metrics, kind):
    """Each kind, from the package, a registry and a scope."""
    registry = metrics.Registry()
    for owner in (metrics, registry, registry.scope("db")):
        with pytest.raises(TypeError) as caught:
            getattr(owner, kind)("x", tag={"route": "/u"})
        assert str(caught.value) == f"{kind}() has no option 'tag'; did you mean 'tags'?"


def test_a_misspelt_option_of_flusher_and_pages():
    """These take a registry or a flusher first."""
    flusher = metricslib.Flusher(Registry())
    view = metricslib.view
    for call, told in (
        (
            lambda: metricslib.Flusher(flusher.registry, spol="x"),
            "Flusher() has no option 'spol'; did you mean 'spool'?",
        ),
        (lambda: view.wsgi(flusher, titel=""), "wsgi() has no option 'titel'; did you mean 'title'?"),
        (lambda: view.blueprint(titel=""), "blueprint() has no option 'titel'; did you mean 'title'?"),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == told


def test_a_misspelt_name(metrics):
    """The nearest public one is named; what is near to nothing is only said to be missing."""
    with pytest.raises(AttributeError, match=r"^metricslib has no attribute 'conter'; did you mean 'counter'\?$"):
        metrics.conter  # noqa: B018
    with pytest.raises(AttributeError, match=r"^metricslib has no attribute 'zebra'$"):
        metrics.zebra  # noqa: B018


# -- the right lines are right

LINES = sorted(
    {
        *hints.NAMES.values(),
        *(line for rows in hints.ATTRIBUTES.values() for line in rows.values()),
        *hints.MADE.values(),
        *hints.OPTIONS.values(),
        *(line for rows in hints.OPTIONS_OF.values() for line in rows.values()),
        *hints.VALUES.values(),
    }
)


@pytest.mark.parametrize("line", LINES)
def test_the_line_of_a_hint_runs(line):
    """As it stands, comments and all: a decorator above a function, everything else alone."""
    registry = Registry()
    away = SimpleNamespace(stop=lambda: True, start=lambda: None)
    shown = {name: getattr(metricslib, name) for name in dir(metricslib)}
    for name in ("counter", "gauge", "timer", "histogram", "unique", "scope", *hints_of_decorators()):
        shown[name] = getattr(registry, name)
    checked = {"start": checked_start, "stop": lambda: True, "flush": lambda: True, "serve": checked_serve}
    view = SimpleNamespace(wsgi=lambda **options: None, asgi=lambda: None, blueprint=metricslib.view.blueprint)
    namespace = {
        **{kind.lower(): getattr(registry, kind.lower())(kind) for kind in KINDS},
        "metrics": SimpleNamespace(**{**shown, **checked, "view": view}),
        **{"name": "x", "n": 1, "value": 1, "seconds": 1.0, "member": "m", "registry": registry, "flusher": away},
        "function": lambda: 1.0,
    }
    exec(f"{line}\ndef function(): ...\n" if line.startswith("@") else line, namespace)
    assert not registry.drops.totals()


def hints_of_decorators():
    return "timed", "counted", "count_exceptions", "in_progress"


def checked_start(to=(), **options):
    """Everything that start() does, but for the thread."""
    metricslib.Flusher(Registry(), to, **options)


def checked_serve(port=8128, registry=None, host="127.0.0.1"):
    assert port
    assert host
    assert registry is None or isinstance(registry, Registry)


def test_no_row_stands_before_something_real():
    """A name in the tables is none that there is."""
    assert hints.NAMES.keys().isdisjoint(dir(metricslib))
    for kind, rows in hints.ATTRIBUTES.items():
        assert rows.keys().isdisjoint(dir(type(example(metricslib, kind)))), kind


# -- what help() and dir() show


def test_dir_is_the_public_names(metrics):
    """And nothing else, so that completion offers what is promised."""
    assert dir(metrics) == sorted([*metrics.__all__, "__version__"])


OWN = {
    "Counter": ["inc"],
    "Gauge": ["dec", "inc", "set"],
    "Timer": ["observe", "time"],
    "Histogram": ["observe"],
    "Unique": ["add"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_instrument_shows_its_own_methods(metrics, kind):
    """In dir() of the class and of an instrument, and in help()."""
    cls = getattr(metrics, kind)
    expected = sorted([*OWN[kind], "key", "kind", "name", "tagged", "tags"])
    for shown in (cls, example(metrics, kind)):
        assert [name for name in dir(shown) if not name.startswith("_")] == expected
    text = pydoc.plain(pydoc.render_doc(cls))
    for name in OWN[kind]:
        assert f"\n |  {name}(self" in text
    for hidden in ("observe_seconds", "sleeping", "labels", "_commit", "__call__"):
        assert hidden not in text


def test_a_registry_shows_no_guesses(metrics):
    """Nor does a scope."""
    for shown in (metrics.Registry, metrics.Registry(), metrics.Scope, metrics.Registry().scope("db")):
        assert {"counter", "timed"} <= {*dir(shown)}
        assert {*dir(shown)}.isdisjoint(hints.NAMES)


def test_help_of_the_package_can_be_had(metrics):
    """Of every public name."""
    for name in metrics.__all__:
        assert pydoc.render_doc(getattr(metrics, name))


@pytest.mark.parametrize(
    ("across", "advice"),
    [
        ("summ", 'did you mean "sum"?'),
        ("Max", 'did you mean "max"?'),
        ("livesum", 'did you mean "sum"?'),
        ("mostrecent", 'did you mean "last"?'),
        ("liveall", 'did you mean "each"?'),
        ("p99", 'must be "last" or "sum" or "min" or "max" or "each"'),
        (["sum"], 'did you mean "sum"?'),
        (None.__class__, 'must be "last" or "sum" or "min" or "max" or "each"'),
    ],
)
def test_a_wrong_rule_for_a_gauge_names_the_right_one(metrics, across, advice):
    registry = metrics.Registry(clock=ManualClock())
    with pytest.raises(ValueError, match=re.escape(f"across = {across!r}: {advice}")):
        registry.gauge("free", across=across)
    assert "free" not in registry.keys("gauge")
