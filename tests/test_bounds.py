"""The page of bounds says what the code does: each default, and tests that exist."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from forwarder.self_metrics import _ADVICE as LISTENER_ADVICE
from forwarder.self_metrics import _EVENTS as EVENTS
from metricslib.budget import LEAST
from metricslib.delivery.queue import ADVICE as QUEUE_ADVICE
from metricslib.registry import ADVICE as REGISTRY_ADVICE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/reference/bounds.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| bound |")
]
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "s": 1}
SOURCE = "".join(file.read_text() for package in ("metricslib", "forwarder") for file in (ROOT / package).rglob("*.py"))


def default_in(text):
    """The number at the end of a cell."""
    number, unit = re.fullmatch(r".*?([0-9][0-9,]*) ?([A-Za-z]*)", text).groups()
    return int(number.replace(",", "")) * UNITS[unit]


def default_of(name):
    """What the code has under a dotted name: a constant, a class' attribute, or a parameter in brackets."""
    name, _, parameter = name.rstrip(")").partition("(")
    path = name.split(".")
    for length in range(len(path), 0, -1):
        try:
            found = import_module(".".join(path[:length]))
            rest = path[length:]
            break
        except ModuleNotFoundError:
            continue
    for attribute in rest[:-1]:
        found = getattr(found, attribute)
    if rest and hasattr(found, "__dataclass_fields__"):
        return found.__dataclass_fields__[rest[-1]].default
    found = getattr(found, rest[-1])
    return inspect.signature(found.__init__).parameters[parameter].default if parameter else found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2].strip("`"))
def test_a_row_says_what_the_code_does(row):
    bound, default, name, _option, _over, counters, tests = row
    assert all(row[:3])
    assert default_of(name.strip("`")) == default_in(default)
    for counter in re.findall(r"`([^`]+)`", counters):
        assert f'"{counter}"' in SOURCE or f"``{counter}``" in SOURCE, counter
    for test in re.findall(r"`([^`]+)`", tests) or pytest.fail(f"no test holds {bound}"):
        file, _, function = test.partition("::")
        assert function in {
            node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
        }, test


def test_the_tests_that_are_named_outside_of_the_tables_exist():
    """For bounds that are not numbers of ours."""
    for file, function in re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE):
        assert f"def {function}(" in (ROOT / file).read_text()


@pytest.mark.parametrize(
    "module", ["forwarder.config_file", "forwarder.dedup", "forwarder.repeater", "metricslib.wire.numbered"]
)
def test_the_page_has_every_bound_of_a_module(module):
    """Of those modules whose public numbers are all bounds."""
    source = inspect.getsource(import_module(module))
    for name in re.findall(r"^([A-Z]+) = \d", source, re.MULTILINE):
        assert f"`{module}.{name}`" in PAGE


@pytest.mark.parametrize("page", ["registry.md", "forwarder.md", "bounds.md"])
def test_the_least_budget_is_written_as_the_code_has_it(page):
    """A mebibyte is not a megabyte."""
    text = " ".join((ROOT / "docs/reference" / page).read_text().split())
    assert f"at least {LEAST >> 20} MiB" in text
    assert " 64 MB" not in text


def test_the_page_has_every_option_that_bounds_something():
    """Those of the forwarder that are called so."""
    from forwarder.config import OPTIONS as options

    for option in options:
        if option.startswith("max_"):
            assert f"Config.{option}`" in PAGE


REGISTRY = {*REGISTRY_ADVICE, "filtered", "overflow", "overflow_dropped", "deleted", "source_error", "late_callback"}
LISTENERS = {*LISTENER_ADVICE, "filtered", "overflow_dropped"}


@pytest.mark.parametrize(
    ("page", "title", "logged"),
    [
        ("registry.md", "| cause | counts |", REGISTRY),
        ("forwarder.md", "| cause | counts |", LISTENERS),
        ("forwarder.md", "| `connections_evicted` |", LISTENERS),
        ("forwarder.md", "| cause of a drop |", {*QUEUE_ADVICE, "shutdown"}),
        ("destinations.md", "| cause | destinations |", {*QUEUE_ADVICE, "shutdown"}),
    ],
)
def test_every_cause_is_logged_with_what_to_change(page, title, logged):
    """Those that are named here have log lines of their own, or were asked for."""
    text = (ROOT / "docs/reference" / page).read_text()
    table = text[text.index(title) :].partition("\n\n")[0]
    causes = {cause for line in table.splitlines() for cause in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert causes
    assert causes <= logged


def test_every_counter_of_the_page_is_logged():
    """But where nothing is lost: a client that is silent is hung up on."""
    counters = {counter for row in ROWS for counter in re.findall(r"`([^`]+)`", row[5])}
    logged_elsewhere = {"send_errors", "bad_lines_seen", "idle", "stalled"}
    events = {EVENTS.get(cause, cause) for cause in LISTENERS}
    assert counters <= REGISTRY | events | {*QUEUE_ADVICE, "shutdown"} | logged_elsewhere
