"""The layers of the source hold; an `__init__.py` re-exports, at once or lazily, and does nothing else; and tests read
fewer and fewer private attributes of other objects.

The layers are contracts of import-linter, in pyproject.toml; `docs/architecture.md` explains them.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_layers_hold():
    """No file imports from a layer above its own, none is without a layer, and no imports run in a circle."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]  # it changes the settings of logging
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "path", [path for package in ("metricslib", "forwarder") for path in (ROOT / package).rglob("__init__.py")], ids=str
)
def test_each_init_only_re_exports(path):
    assert _work_in_init(path.read_text(encoding="utf-8")) == []


PRIVATE = 211
"""On how many lines tests read private attributes of other objects. Lower it with each that goes; never raise it."""


def test_tests_read_no_more_private_attributes_than_before():
    files = [path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts]
    lines = [f"{path}:{line}" for path in files for line in _private_reads(path.read_text(encoding="utf-8"))]
    assert len(lines) <= PRIVATE, "\n".join(lines)


def _private_reads(source: str) -> set[int]:
    return {
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_own(node.value)
    }


def _is_private(name: str) -> bool:
    return (
        name.startswith("_") and not name.startswith("__") and name not in ("_replace", "_asdict", "_fields", "_exit")
    )


def _is_own(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def _work_in_init(source: str) -> list[int]:
    """Return the lines of an `__init__.py` that are no re-export."""
    return [
        node.lineno
        for position, node in enumerate(ast.parse(source).body)
        if not (_is_re_export(node) or (position == 0 and _is_docstring(node)))
    ]


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
    assert _work_in_init(source) == []


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
    assert len(_work_in_init(source)) == 1
