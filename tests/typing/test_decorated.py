"""Type checkers see through the decorators, and find wrong names and options. The other files here are users' code."""

from pathlib import Path

import pytest
from mypy import api

USERS = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_"))


@pytest.mark.parametrize("user", USERS, ids=lambda path: path.stem)
def test_mypy_sees_the_original_signatures_and_finds_the_mistakes(user, tmp_path, monkeypatch):
    """Of functions and methods of every kind, with and without parentheses. A mistake not found is an unused ignore."""
    monkeypatch.setenv("MYPYPATH", str(user.parents[2]))
    options = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}"]
    report, crash, status = api.run([*options, str(user)])
    assert status == 0, report + crash
