"""Every module can be imported alone, without a warning, and the package itself pulls in nothing heavy."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import metricslib

ROOT = Path(__file__).parent.parent
NEED_C = {"forwarder.aggregator_c": "forwarder._aggregator"}
"""Modules that are there for an extension, and the extension: where no compiler was, there is neither."""
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("metricslib", "forwarder")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__main__.py"
)
MODULES = [module for module in MODULES if module not in NEED_C or find_spec(NEED_C[module])]
HEAVY = {
    *("flask", "sqlite3", "asyncio", "requests", "whisper", "waitress", "multiprocessing", "ssl", "http.server"),
    *("dataclasses", "inspect", "hashlib", "_hashlib", "logging", "traceback", "socket", "json"),
    *("pathlib", "urllib.parse", "ipaddress"),
}


def alone(script):
    """Run a script in a fresh interpreter in which warnings are errors; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


EACH_ALONE = """
import os, sys, traceback

for module in MODULES:
    __import__(module)
for name in [*sys.modules]:
    if name.partition(".")[0] in ("metricslib", "forwarder"):
        del sys.modules[name]  # what others made stays, and is not loaded more than a hundred times
for module in MODULES:
    child = os.fork()
    if not child:
        try:
            __import__(module)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(module)
"""


def test_every_module_can_be_imported_alone():
    """Nothing hangs on the order of imports, and none of them warns."""
    assert alone(EACH_ALONE.replace("MODULES", repr(MODULES))) == []


IMPLEMENTATIONS = pytest.mark.parametrize("pure", ["", "1"], ids=["C, where it is built", "Python"])


@IMPLEMENTATIONS
def test_importing_the_package_is_cheap(monkeypatch, pure):
    """Neither Flask nor SQLite nor asyncio nor anything else that a program may never need.

    Nor that of the standard library which takes about as long to load as all the rest.
    """
    monkeypatch.setenv("METRICSLIB_PURE", pure)
    loaded = alone("import sys; before = {*sys.modules}; import metricslib; print(*{*sys.modules} - before)")
    assert "metricslib.registry" in loaded
    assert HEAVY.isdisjoint(loaded)


MEASURING = """
import sys, metricslib
from metricslib import Registry, drop

registry = Registry(filters=[drop("dropped")], max_tag_sets=2)
work = registry.timed(registry.counted(registry.count_exceptions(registry.in_progress(lambda value: float(value)))))
before = {*sys.modules}
for value in (1, 0.5, -1, 10**400, float("nan"), "text", None, b"", [], "long" * 100):
    for number in range(600):
        registry.counter("c").tagged(number=number).inc(value)
        registry.gauge("g").set(value)
        registry.timer("t").observe(value)
        registry.histogram("dropped").observe(value)
        registry.unique("u").add(value)
        with registry.timer("t").time() as span:
            span.tag(value=value)
    try:
        work(value)
    except (TypeError, ValueError, OverflowError):
        pass
print(*{*sys.modules} - before)
"""


@IMPLEMENTATIONS
def test_measuring_imports_nothing(monkeypatch, pure):
    """Whatever is measured: a call may come from where an import must not be waited for."""
    monkeypatch.setenv("METRICSLIB_PURE", pure)
    assert alone(MEASURING) == []


def test_no_module_has_the_name_of_one_of_the_packages_functions():
    """Such a module would take the function's place in the package when it is imported."""
    functions = {name for name in metricslib.__all__ if callable(getattr(metricslib, name))}
    assert functions.isdisjoint(path.stem for path in (ROOT / "metricslib").iterdir())


def test_all_that_is_promised_is_there():
    """Each name in a module's `__all__` can be had."""
    script = "import {0} as m; [getattr(m, name) for name in getattr(m, '__all__', ())]"
    alone("\n".join(script.format(module) for module in MODULES))
