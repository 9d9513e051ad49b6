"""The order of the source: every file stands on a floor and imports only from lower floors.

`FLOORS` is that order; `docs/architecture.md` tells why. Imports count wherever they stand: at the top, in a function,
under `if TYPE_CHECKING`. Files of one sub-package (`delivery/`) may import each other on their own floor; otherwise two
files on one floor know nothing of each other. The root `__init__.py` re-exports everything, so it stands on the roof,
and no file below may import from it. A sub-package's `__init__.py` stands on the floor of its sub-package. No
`__init__.py` does anything but re-export, at once or lazily.
"""

import ast
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent

Floors = Mapping[str, int]

# The first pattern that matches a path counts. `*` matches any characters, `/` too.
FLOORS: Floors = {
    "metricslib/errors.py": 0,
    "metricslib/clock.py": 0,
    "metricslib/account.py": 0,
    "metricslib/attempt.py": 0,
    "metricslib/calls.py": 0,
    "metricslib/hints.py": 0,
    "metricslib/log.py": 0,
    "metricslib/_speedups.pyi": 0,  # the C twin leans on nothing; each twin's Python file chooses between them
    "metricslib/native/*": 0,
    "metricslib/added.py": 0,
    "metricslib/buckets.py": 0,
    "metricslib/process.py": 0,
    "metricslib/names.py": 1,
    "metricslib/survived.py": 1,
    "metricslib/twins.py": 1,
    "metricslib/series.py": 2,
    "metricslib/budget.py": 3,
    "metricslib/samples.py": 2,
    "metricslib/cell.py": 2,
    "metricslib/distribution.py": 3,
    "metricslib/window.py": 4,
    "metricslib/instrument.py": 5,
    "metricslib/totals.py": 5,
    "metricslib/counter.py": 6,
    "metricslib/gauge.py": 6,
    "metricslib/timer.py": 6,
    "metricslib/histogram.py": 6,
    "metricslib/unique.py": 6,
    "metricslib/decorators.py": 7,
    "metricslib/callbacks.py": 7,
    "metricslib/admission.py": 7,
    "metricslib/ledger.py": 7,
    "metricslib/wire/*": 7,
    "metricslib/instruments.py": 8,
    "metricslib/naming.py": 8,
    "metricslib/notes.py": 8,
    "metricslib/snapshot.py": 8,
    "metricslib/history.py": 8,
    "metricslib/registry.py": 9,
    "metricslib/delivery/*": 9,
    "metricslib/keepers.py": 10,
    "metricslib/schedule.py": 10,
    "metricslib/own.py": 10,
    "metricslib/registry_keeper.py": 10,
    "metricslib/group/*": 11,
    "metricslib/flusher.py": 11,
    "metricslib/testing.py": 11,
    "metricslib/default.py": 10,
    "metricslib/shipping.py": 12,
    "metricslib/view/*": 13,
    "metricslib/__init__.py": 14,
    "forwarder/native/*": 0,
    "forwarder/_intake.pyi": 0,
    "forwarder/addresses.py": 0,
    "forwarder/config_file.py": 0,
    "forwarder/javascript.py": 2,
    "forwarder/statsd_values.py": 3,
    "forwarder/statsd_urls.py": 4,
    "forwarder/descriptors.py": 0,
    "forwarder/foreign.py": 0,
    "forwarder/health.py": 0,
    "forwarder/space_saving.py": 0,
    "forwarder/options.py": 1,
    "forwarder/config.py": 2,
    "forwarder/parser.py": 1,
    "forwarder/counts.py": 1,
    "forwarder/keys.py": 1,
    "forwarder/repeater.py": 1,
    "forwarder/inherited.py": 1,
    "forwarder/notify.py": 1,
    "forwarder/watchdog.py": 2,
    "forwarder/intake_in_python.py": 4,
    "forwarder/intake_in_c.py": 4,
    "forwarder/intake.py": 5,
    "forwarder/relay.py": 2,
    "forwarder/vitals.py": 2,
    "forwarder/busiest.py": 2,
    "forwarder/key_flush.py": 6,
    "forwarder/listeners/*": 6,
    "forwarder/console.py": 6,
    "forwarder/own.py": 6,
    "forwarder/senders.py": 6,
    "forwarder/from_statsd.py": 6,
    "forwarder/entrance.py": 7,
    "forwarder/daemon.py": 8,
    "forwarder/cli.py": 9,
    "forwarder/__main__.py": 10,
    "forwarder/__init__.py": 11,
}
PACKAGES = ("metricslib", "forwarder")
SOURCE_SUFFIXES = (".py", ".pyi", ".c")


def find_violations(sources: Mapping[str, str], floors: Floors = FLOORS) -> list[str]:
    """Every break of the order in `sources` (path → text), as `path:line: what is wrong`."""
    modules = _modules(sources)
    found = []
    for path in sorted(path for path in sources if path.endswith(".py")):
        tree = ast.parse(sources[path], path)
        floor = _floor_of(path, floors)
        if floor is None:
            found.append(f"{path}:1: stands on no floor: give it one in FLOORS")
        else:
            found += [
                f"{path}:{line}: on floor {floor}, {wrong}"
                for line, target in _imports(path, tree, modules)
                if (wrong := _judge(path, floor, target, _floor_of(target, floors)))
            ]
        if path.endswith("/__init__.py"):
            found += [f"{path}:{line}: an __init__.py only re-exports" for line in _work_in_init(tree)]
    return found


def _floor_of(path: str, floors: Floors) -> int | None:
    return next((floor for pattern, floor in floors.items() if fnmatchcase(path, pattern)), None)


def _judge(path: str, floor: int, target: str, target_floor: int | None) -> str | None:
    """What is wrong with `path` importing `target`, if anything."""
    package, target_package = path.partition("/")[0], target.partition("/")[0]
    if package != target_package:
        return f"imports {target}, but forwarder is above" if target_package == "forwarder" else None
    if target_floor is None:
        return f"imports {target} on no floor"
    if target_floor < floor or (target_floor == floor and _in_one_sub_package(path, target)):
        return None
    return f"imports {target} on floor {target_floor}"


def _in_one_sub_package(path: str, other: str) -> bool:
    """Whether both stand in one folder below a package: `metricslib/wire/…`, but not `metricslib/…` itself."""
    parts, others = path.split("/"), other.split("/")
    return len(parts) > 2 and len(others) > 2 and parts[:2] == others[:2]


def _modules(sources: Mapping[str, str]) -> dict[str, str]:
    """Dotted module name → path. Where a module has several files (a C source and its stub), any of them will do."""
    modules = {}
    for path in sources:
        parts = PurePosixPath(path).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def _imports(path: str, tree: ast.Module, modules: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Line and target path of every import from within the two packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(path, node)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] in PACKAGES:
                yield node.lineno, _file_of(name, modules)


def _absolute(path: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = PurePosixPath(path).parts[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _file_of(name: str, modules: Mapping[str, str]) -> str:
    """The file that an imported name comes from: its own if it is a module, else that of the nearest package above."""
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return modules.get(name, f"{name}/__init__.py")


def _work_in_init(tree: ast.Module) -> Iterator[int]:
    """Lines of an `__init__.py` that are no re-export."""
    for position, node in enumerate(tree.body):
        if not (_is_re_export(node) or (position == 0 and _is_docstring(node))):
            yield node.lineno


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_re_export(node: ast.stmt) -> bool:
    """An import; `__getattr__` and `__dir__`; `__all__`, or a literal table for these. Also if TYPE_CHECKING or not."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.If(test=ast.Name("TYPE_CHECKING"), orelse=[]):
            return all(isinstance(inner, ast.Import | ast.ImportFrom | ast.AnnAssign) for inner in node.body)
        case ast.If(test=ast.UnaryOp(op=ast.Not(), operand=ast.Name("TYPE_CHECKING")), orelse=[]):
            return all(map(_is_re_export, node.body))
        case ast.FunctionDef(name="__getattr__" | "__dir__"):
            return True
        case ast.Assign(targets=[ast.Name(name)], value=value) | ast.AnnAssign(target=ast.Name(name), value=value):
            return name == "__all__" or (name.startswith("_") and value is not None and _is_literal(value))
        case ast.AugAssign(target=ast.Name("__all__")):
            return True
        case _:
            return False


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _source() -> Mapping[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in SOURCE_SUFFIXES
    }


def test_the_source_keeps_the_order():
    """No file of metricslib or forwarder imports sideways or upwards, and none is without a floor."""
    sources = _source()
    assert {f"{package}/__init__.py" for package in PACKAGES} <= sources.keys()
    assert not (violations := find_violations(sources)), "\n" + "\n".join(violations)


def test_no_floor_is_kept_for_a_file_that_has_gone():
    """Every pattern is that of a file."""
    paths = _source().keys()
    assert [pattern for pattern in FLOORS if not any(fnmatchcase(path, pattern) for path in paths)] == []


# A small made-up project with floors of its own. It is in good order but for the one file that a test adds to it.
MADE_UP_FLOORS = {
    "metricslib/_speedups.*": 0,
    "metricslib/names.py": 0,
    "metricslib/counter.py": 1,
    "metricslib/gauge.py": 1,
    "metricslib/registry.py": 2,
    "metricslib/wire/*": 3,
    "metricslib/delivery/*": 4,
    "metricslib/__init__.py": 5,
    "forwarder/parser.py": 0,
    "forwarder/cli.py": 1,
    "forwarder/__init__.py": 2,
}
ORDERLY = {
    "metricslib/__init__.py": "",
    "metricslib/_speedups.c": "",
    "metricslib/_speedups.pyi": "",
    "metricslib/names.py": "",
    "metricslib/counter.py": "from ._speedups import Counter",
    "metricslib/gauge.py": "",
    "metricslib/registry.py": "from . import counter, gauge\nfrom .names import join\nimport threading",
    "metricslib/wire/__init__.py": "from .statsd import encode",
    "metricslib/wire/numbers.py": "",
    "metricslib/wire/statsd.py": "from .numbers import fixed\nfrom ..names import join\nfrom metricslib import gauge",
    "metricslib/delivery/__init__.py": "",
    "metricslib/delivery/spool.py": "from metricslib.wire import encode",
    "forwarder/__init__.py": "",
    "forwarder/parser.py": "import metricslib\nfrom metricslib.delivery import spool",
    "forwarder/cli.py": "from . import parser",
}


def judge(path: str, source: str) -> list[str]:
    return find_violations({**ORDERLY, path: source}, MADE_UP_FLOORS)


def test_an_orderly_project_passes():
    """Downwards, within a sub-package and from forwarder to metricslib: all of that is allowed."""
    assert find_violations(ORDERLY, MADE_UP_FLOORS) == []


NAMES, COUNTER, CLI = "metricslib/names.py", "metricslib/counter.py", "forwarder/cli.py"
WIRE, WIRE_INIT, ROOT_INIT = "metricslib/wire/statsd.py", "metricslib/wire/__init__.py", "metricslib/__init__.py"


@pytest.mark.parametrize(
    ("path", "source", "line", "wrong"),
    [
        (NAMES, "\nimport metricslib.gauge", 2, "on floor 0, imports metricslib/gauge.py on floor 1"),
        (NAMES, "from .gauge import Gauge", 1, "on floor 0, imports metricslib/gauge.py on floor 1"),
        (NAMES, "def f():\n    from .gauge import Gauge", 2, "on floor 0, imports metricslib/gauge.py on floor 1"),
        (NAMES, "if TYPE_CHECKING:\n    from . import gauge", 2, "on floor 0, imports metricslib/gauge.py on floor 1"),
        (NAMES, "from ._speedups import fold", 1, "on floor 0, imports metricslib/_speedups.pyi on floor 0"),
        (COUNTER, "from . import names, gauge", 1, "on floor 1, imports metricslib/gauge.py on floor 1"),
        (COUNTER, "from metricslib import gauge", 1, "on floor 1, imports metricslib/gauge.py on floor 1"),
        (COUNTER, "from metricslib import Gauge", 1, "on floor 1, imports metricslib/__init__.py on floor 5"),
        (COUNTER, "import metricslib", 1, "on floor 1, imports metricslib/__init__.py on floor 5"),
        (COUNTER, "from . import *", 1, "on floor 1, imports metricslib/__init__.py on floor 5"),
        (WIRE, "from ..delivery import spool", 1, "on floor 3, imports metricslib/delivery/spool.py on floor 4"),
        (WIRE, "from ..delivery import Spool", 1, "on floor 3, imports metricslib/delivery/__init__.py on floor 4"),
        (WIRE_INIT, "from ..delivery.spool import S", 1, "on floor 3, imports metricslib/delivery/spool.py on floor 4"),
        (WIRE, "import forwarder.parser", 1, "on floor 3, imports forwarder/parser.py, but forwarder is above"),
        (ROOT_INIT, "import forwarder", 1, "on floor 5, imports forwarder/__init__.py, but forwarder is above"),
        (CLI, "from . import main", 1, "on floor 1, imports forwarder/__init__.py on floor 2"),
        ("metricslib/utils.py", "", 1, "stands on no floor: give it one in FLOORS"),
    ],
)
def test_a_break_of_the_order_is_found(path, source, line, wrong):
    """Each way to import sideways or upwards is reported once, with file, line and both floors."""
    assert judge(path, source) == [f"{path}:{line}: {wrong}"]


@pytest.mark.parametrize(
    "source",
    [
        '"""What the package is."""\nfrom .counter import Counter\nimport importlib\n__all__ = ["Counter"]',
        "__all__: list[str] = []\n__all__ += ['a']",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .counter import Counter as Counter",
        "_LAZY = {'timed': 'decorators'}\ndef __getattr__(name):\n    return _LAZY[name]\ndef __dir__(): ...",
    ],
)
def test_an_init_may_re_export(source):
    """Imports, `__all__`, and a lazy `__getattr__` with its table are what an `__init__.py` is for."""
    assert judge(ROOT_INIT, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "def counter(name): ...",
        "class Counter: ...",
        "registry = {}",
        "_registry = dict()",
        "print('hello')",
        "if TYPE_CHECKING:\n    x = 1",
        "import os\n'no docstring'",
        "for name in (): ...",
        "try:\n    from ._speedups import Counter\nexcept ImportError:\n    from .counter import Counter",
    ],
)
def test_an_init_that_works_is_found(source):
    """Anything else in an `__init__.py` belongs in a file with a name."""
    (violation,) = judge(ROOT_INIT, source)
    assert violation.startswith(f"{ROOT_INIT}:")
    assert violation.endswith("an __init__.py only re-exports")
