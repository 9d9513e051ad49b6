"""The documentation says what is: its code runs, its tables and configuration agree with the source.

Every block that is fenced as ``python`` in the documentation and the README is run, page by page: the blocks of a page
are one program, in a process and an empty directory of its own. Warnings are errors, and the wall clock stands still,
so that no interval ends in between. The clock that measures durations goes on by an eighth of a second each time the
program asks for it, so that every duration is known. A fragment that is not to be run is fenced as ``python no-run``.
A block that is fenced as ``text`` and directly follows a block of code is what that code prints; ``…`` in it stands for
anything. Console blocks are in test_docs_commands.py.
"""

import ast
import configparser
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import metricslib.testing
import metricslib.view
from forwarder.config import OPTIONS, Config
from forwarder.options import toml
from metricslib import Flusher, Registry
from metricslib.delivery.whisper import aggregation
from metricslib.naming import Naming
from metricslib.view.as_json import as_values
from metricslib.view.report import report
from metricslib.wire import jsonl

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
STORAGE = DOCS / "how-to" / "graphite-storage-schemas.md"


NOW = 1_700_006_403.0
"""Three seconds into an interval of ten."""

CLOCKS = f"""
import threading, time
time.time = lambda: {NOW}
real, asked = time.perf_counter, 0
def perf_counter():
    global asked
    if threading.current_thread() is not threading.main_thread():
        return real()
    asked += 1
    return start + asked / 8
start = real()
time.perf_counter = perf_counter
"""
TIMERS = """
from metricslib import default_registry
timers = default_registry.snapshot().open.timers
for key in sorted(timers):
    print(f"{key} {timers[key].count} {timers[key].sum / 1000:g}")
"""
TIMED: Mapping[str, Sequence[str]] = {
    "README.md": ["shop.search 1 0.125"],
    "docs/how-to/blocked.md": [
        "asyncio.loop.blocked;site=__main__.parse 1 0.…",
        "asyncio.loop.lag …",
        "greenlet.hold;site=__main__.resize 1 0.5…",
        "greenlet.hold;site=main …",
    ],
    "docs/how-to/flask.md": [
        "http.server.request.duration;method=GET;route=-search;status=2xx 1 0.375",
        "http.server.request.duration;method=GET;route=unmatched;status=4xx 1 0.125",
        "http.server.request.duration;method=POST;route=-checkout-product;status=2xx 1 0.375",
        "shop.checkout 1 0.125",
        "shop.search 1 0.125",
    ],
    "docs/how-to/testing.md": ["night 1 3600"],
    "docs/reference/decorators.md": ["__main__.work 0 0", "checkout;tier=gold 0 0", "report 1 0.125"],
    "docs/reference/destinations.md": [],
    "docs/reference/instruments.md": ["db.query 1 0.125", "db.query;rows=2 1 0.125"],
    "docs/reference/integrations.md": [
        "db.client.operation.duration;db=shop;operation=SELECT;system=sqlite 1 0.125",
        "http.server.request.duration;method=GET;route=-products-number;status=2xx 1 0.125",
        "http.server.request.duration;method=GET;route=-users-number;status=2xx 2 …",  # in a thread, by the real clock
    ],
    "docs/reference/paths.md": [],
    "docs/tutorial.md": ["checkout 7 0.875", "db.query 2 0.15"],
}
"""What the timers of the default registry have at the end of each page that times something: how many durations, and
how many seconds in all. A page whose timers are in a registry of its own shows or asserts what they have.
"""


class Block(NamedTuple):
    """One fenced block: the fence's words, the line number of its first line of text, the text."""

    info: str
    line: int
    text: str

    @property
    def end(self) -> int:
        """The line number of the closing fence."""
        return self.line + self.text.count("\n")


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found: list[Block] = []
    opened, fence = 0, ""
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not fence:
            if match := re.match(r"(```+)(.*)", line):
                (fence, info), opened, inside = match.groups(), number, []
        elif line == fence:
            found.append(Block(info.strip(), opened + 1, "".join(f"{part}\n" for part in inside)))
            fence = ""
        else:
            inside.append(line)
    assert not fence, f"line {opened}: a fence that nobody closes"
    return found


def program(page: list[Block]) -> str:
    """Return the page's code, on the lines where it stands there; NUL ends what each block prints."""
    lines: list[str] = []
    for block in page:
        if block.info == "python":
            lines += [""] * (block.line - 1 - len(lines))
            lines += [*block.text.splitlines(), 'print(end="\\0")']
    return "\n".join(lines)


def promised_output(page: list[Block], text: str) -> Iterator[tuple[int, Block]]:
    """Yield blocks that show what a block of code prints, with that block's number among the blocks of code."""
    lines = text.splitlines()
    ran = -1
    for before, block in zip([Block("", 0, ""), *page], page, strict=False):
        ran += block.info == "python"
        between = lines[before.end : block.line - 2]
        if block.info == "text" and before.info == "python" and not any(between):
            yield ran, block


def looks_like(shown: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in shown.split("…"))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def run(source: str, path: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a page's code with clocks that the test knows; at last it prints what the default registry's timers have."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("METRICSLIB", "FORWARDER"))
    } | {"METRICSLIB_GROUP_DIR": str(directory / "groups")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{CLOCKS}\nexec(compile({source!r}, {str(path)!r}, 'exec'))\n{TIMERS}"],
        cwd=directory,
        env={**environment, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "TZ": "UTC"},
        capture_output=True,
        text=True,
        timeout=60,
    )


WITH_CODE = [page for page in PAGES if "\n```python\n" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs(path: Path, tmp_path: Path):
    """Each page's code is a program that ends well, and prints what the page says."""
    text = path.read_text(encoding="utf-8")
    page = blocks(text)
    done = run(program(page), path, tmp_path)
    assert done.returncode == 0, done.stderr
    *printed, timers = done.stdout.split("\0")
    for number, block in promised_output(page, text):
        assert looks_like(block.text, printed[number]), f"{path}:{block.line}: prints\n{printed[number]}"
    expected = TIMED.get(path.relative_to(ROOT).as_posix(), [])
    assert looks_like("".join(f"{line}\n" for line in expected), timers), timers


def test_every_page_that_times_something_is_checked_by_what_it_measured():
    """Its code runs without an error, too, if it measures nothing for ever."""
    timing = re.compile(r"\.timed\b|\.instrument\(|\.watch_|\.observe\(|(?<!\btime)\.time\(\)")
    pages = {
        path.relative_to(ROOT).as_posix()
        for path in PAGES
        if timing.search("".join(block.text for block in blocks(path.read_text("utf-8")) if block.info == "python"))
    }
    assert pages == set(TIMED)


def test_code_that_is_not_run_says_so():
    """No page has code under another fence, which nobody would run."""
    odd = [
        f"{path}:{block.line}: {block.info}"
        for path in PAGES
        for block in blocks(path.read_text(encoding="utf-8"))
        if re.match(r"py|\{code|>>>", block.info) and block.info not in ("python", "python no-run")
    ]
    assert not odd


# -- the order of the source, as architecture.md tells it


def test_the_layers_are_told_as_they_are():
    """The tables in architecture.md have every module in the layer that import-linter's contract gives it."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        if contract["type"] == "layers":
            (package,) = contract["containers"]
            table = text.partition(f"| layer | modules of `{package}` |")[2].partition("\n\n")[0]
            rows = [row.split("|")[2] for row in table.splitlines()[2:]]
            told = [{name.removesuffix("/") for name in re.findall(r"`([^`]+)`", row)} for row in rows]
            assert told == [set(layer.split(" : ")) for layer in contract["layers"]]


# -- the code map


CODE_MAP = (DOCS / "explanation" / "code-map.md").read_text(encoding="utf-8")


def defined_in(file: Path) -> set[str]:
    """Return the names that a source file defines: functions, classes, their methods, and constants of the module."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        return set(re.findall(r"^[a-z].*?\b(\w+)\([^;]*?\) \{", text, re.MULTILINE))
    names: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_code_map_names_what_exists():
    """Files, folders, and functions in the files that it says."""
    paths = set(re.findall(r"`((?:\w+/)+[\w.]*)`", CODE_MAP))
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    places = set(re.findall(r"`([\w.]+)(?:\(\))?`\s+in\s+`([\w/.]+)`", CODE_MAP))
    assert [place for place in sorted(places) if place[0] not in defined_in(ROOT / place[1])] == []


def test_the_code_map_says_where_each_function_is():
    """Otherwise the check above would pass it over."""
    assert re.findall(r"`[\w.]+\(\)`(?!\s+in\s+`)", CODE_MAP) == []


# -- public docstrings, from which the reference is made

MADE_BY_USERS = (Flusher, Registry, metricslib.testing.ManualClock, metricslib.view.Server)
"""The classes that have parameters. Instruments, scopes and errors are created by the library."""


def public() -> Iterator[tuple[str, Any]]:
    """Yield what the package exports, and the methods that the reference shows."""
    for module in (metricslib, metricslib.view, metricslib.testing):
        yield from ((name, getattr(module, name)) for name in module.__all__ if callable(getattr(module, name)))
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for path, names in re.findall(r"autoclass:: ([\w.]+).*\n +:members: (.+)", text):
        module, _, name = path.rpartition(".")
        methods = (getattr(getattr(importlib.import_module(module), name), method) for method in names.split(", "))
        yield from ((method.__qualname__, method) for method in methods if inspect.isroutine(method))


def parameters(found: Any) -> set[str]:
    if isinstance(found, type):
        if found not in MADE_BY_USERS:
            return set()
        found = vars(found)["__init__"]
    names = inspect.signature(found).parameters
    return {name for name in names if name not in ("self", "unknown") and not name.startswith("_")}


def test_public_docstrings_describe_every_parameter():
    """In a section ``Args:``, in Google's style."""
    wrong = []
    for name, found in public():
        text = inspect.getdoc(found) or ""
        section = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
        described = set(re.findall(r"^    \**(\w+):", section, re.MULTILINE))
        if not text or described != parameters(found):
            wrong.append((name, parameters(found) ^ described))
    assert wrong == []


# -- names that readers rely on


def told_names(page: str, heading: str) -> list[str]:
    """Return the names in the first column of the first table under ``heading``."""
    text = (DOCS / "reference" / page).read_text(encoding="utf-8").partition(f"# {heading}\n")[2]
    rows = re.search(r"^(?:\|.*\n)+", text, re.MULTILINE)
    assert rows, f"{page}: no table under {heading}"
    return re.findall(r"`([^`]+)`", "\n".join(row.split("|")[1] for row in rows[0].splitlines()))


def test_the_members_of_the_json_are_told():
    """json.md has every member of the page's JSON, in order."""
    registry = Registry()
    registry.counter("web.hits").inc()
    flusher = Flusher(registry, "console:")
    page = as_values(report(registry.snapshot(10, 10), flusher.status()))
    assert told_names("json.md", "The object") == list(page)
    assert told_names("json.md", "A series") == list(page["series"][0])
    assert sorted(told_names("json.md", "A destination")) == sorted(page["destinations"][0])


def test_every_cause_of_the_registry_is_told():
    """registry.md has every cause under which floors up to the registry count what they drop, and no other."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "metricslib").rglob("*.py")]
    causes = {cause for source in sources for cause in re.findall(r"(?:drops|_limits)\.add\(\"([a-z_]+)\"", source)}
    assert set(told_names("registry.md", "What is counted when something is dropped")) - {"str()", "on_slow"} == causes


def test_the_schema_of_json_lines_is_told():
    """destinations.md has every member of a line of a jsonl file."""
    line = json.loads(jsonl.encode(Registry().tick(10, 10).cumulative))
    told = told_names("destinations.md", "Files of JSON lines")
    assert sorted(told) == sorted(line)


# -- promises, and who holds them


def told_tests() -> set[str]:
    """Return the tests that guarantees.md names, as ``file::test``."""
    text = (DOCS / "reference" / "guarantees.md").read_text(encoding="utf-8")
    return set(re.findall(r"`(tests/[a-z_/]+\.py::\w+)`", text))


def found_in(file: Path) -> set[str]:
    names = re.findall(r"^def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {f"{file.relative_to(ROOT).as_posix()}::{name}" for name in names}


def test_every_guarantee_has_its_test():
    """Each test that guarantees.md names is there, and every row of its tables names one."""
    files = {ROOT / test.partition("::")[0] for test in told_tests()}
    assert told_tests() <= set().union(*map(found_in, files))
    rows = re.findall(r"^\| .*", (DOCS / "reference" / "guarantees.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [row for row in rows if "::test_" not in row and not row.startswith("| fault |")] == []


def test_every_fault_of_the_suite_is_told():
    """What `make faults` tries is in the tables of guarantees.md."""
    suite = [*(ROOT / "tests" / "faults").glob("test_*.py"), ROOT / "tests" / "delivery" / "test_faults.py"]
    assert set().union(*map(found_in, suite)) <= told_tests()


# -- the forwarder's options, as its page tells them


def test_every_option_is_told_with_its_default():
    """The table of options in forwarder.md has all that there are, in order, with flag and default."""
    text = (DOCS / "reference" / "forwarder.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `([a-z_.]+)` \| (?:`(--[a-z-]+)`)? ?\| (?:`(.*?)`)? ?\| ", text, re.MULTILINE)
    defaults = Config().values()
    assert told == [
        (
            name,
            f"--{name.replace('_', '-')}" if option.metavar else "",
            toml(option.kind.raw(defaults[name])) if name in defaults else "",
        )
        for name, option in OPTIONS.items()
    ]


# -- storage-schemas.conf and storage-aggregation.conf, as the how-to gives them


def configuration(name: str) -> str:
    """Return the block of the how-to that is the file ``name``: its first line says so."""
    page = blocks(STORAGE.read_text(encoding="utf-8"))
    (text,) = [block.text for block in page if block.info == "ini" and block.text.startswith(f"# {name}\n")]
    return text


def sections(name: str) -> list[tuple[str, dict[str, str]]]:
    parser = configparser.ConfigParser()
    parser.read_string(configuration(name))
    return [(section, dict(parser[section])) for section in parser.sections()]


def paths(naming: Naming) -> dict[str, str]:
    """Return every path that one series of each kind has, plain and tagged, and how our whisper files roll it up."""
    registry = Registry()
    for tags in ({}, {"route": "/u"}):
        registry.counter("web.hits", tags=tags).inc()
        registry.timer("db.query", tags=tags).observe(0.1)
        registry.timer("db.idle", tags=tags)
        registry.histogram("upload.bytes", tags=tags).observe(1)
        registry.gauge("queue.count", tags=tags).set(1)
        registry.unique("web.users", tags=tags).add("u")
    return {path: aggregation(path, naming) for path, _ in naming.pairs(registry.tick(10, 10).cumulative)}


NAMINGS = {
    "default": Naming(prefix="shop.web1", percentiles=(90, 99.9, -10), bins=(("db", (10, 0.5, float("inf"))),)),
    "legacy": Naming(prefix="shop.web1", percentiles=(90, 99.9, -10), legacy=True),
}


def first_match(name: str, path: str) -> dict[str, str]:
    return next(options for _, options in sections(name) if re.search(options["pattern"], path))


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_path_meets_its_schema_and_aggregation(naming: str):
    """The first pattern that a path matches, as carbon goes about it, gives 10-second slots and the method that our own
    whisper files have.
    """
    for path, method in paths(NAMINGS[naming]).items():
        assert first_match("storage-schemas.conf", path)["retentions"].startswith("10s:"), path
        found = first_match("storage-aggregation.conf", path)
        assert (found["aggregationmethod"], float(found["xfilesfactor"])) == (method, 0), path


CARBON = """
import sys
from carbon.conf import settings
settings["CONF_DIR"] = sys.argv[1]
from carbon.storage import loadAggregationSchemas, loadStorageSchemas
schemas, aggregations = loadStorageSchemas(), loadAggregationSchemas()
for path in sys.stdin.read().split():
    schema = next(schema for schema in schemas if schema.matches(path))
    aggregation = next(aggregation for aggregation in aggregations if aggregation.matches(path))
    print(path, schema.archives[0].getTuple()[0], *aggregation.archives)
"""


@pytest.mark.parametrize("naming", NAMINGS)
def test_carbon_reads_the_configuration_the_same_way(naming: str, tmp_path: Path, need: Callable[..., None]):
    """carbon's own code, with the files as the how-to gives them, finds the same for every path."""
    if not importlib.util.find_spec("carbon"):
        need("carbon-cache.py")
    for name in ("storage-schemas.conf", "storage-aggregation.conf"):
        (tmp_path / name).write_text(configuration(name))
    expected = paths(NAMINGS[naming])
    done = subprocess.run(
        [sys.executable, "-c", CARBON, str(tmp_path)], input="\n".join(expected), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines() if line.startswith("stats")]
    assert found == [[path, "10", "0.0", method] for path, method in expected.items()]


# -- the checks check


def test_blocks_know_where_they_stand():
    """Fences, their words, and the line numbers of a page's blocks."""
    assert blocks("a\n```python\nx = 1\n\ny = 2\n```\n\n```text\n```\n") == [
        Block("python", 3, "x = 1\n\ny = 2\n"),
        Block("text", 9, ""),
    ]


def test_promised_output_follows_its_code():
    """Only a text block with nothing but empty lines between it and the code is taken as output."""
    text = "```python\n```\n\n```text\na\n```\n```python\n```\nThus:\n```text\nb\n```\n"
    assert [(number, block.text) for number, block in promised_output(blocks(text), text)] == [(0, "a\n")]


@pytest.mark.parametrize(("shown", "printed", "like"), [("a…c\n", "abbc\n", True), ("a\n", "ab\n", False)])
def test_output_may_have_gaps(shown: str, printed: str, like: bool):
    """… stands for anything, everything else for itself."""
    assert looks_like(shown, printed) is like
