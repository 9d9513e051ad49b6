"""Type checkers see through the decorators. The file beside this one is what a user writes."""

from pathlib import Path

from mypy import api

USER = Path(__file__).with_name("decorated.py")


def test_mypy_sees_the_original_signatures_and_finds_the_mistakes(tmp_path, monkeypatch):
    """Of functions and methods of every kind, with and without parentheses. A mistake not found is an unused ignore."""
    monkeypatch.setenv("MYPYPATH", str(USER.parents[2]))
    options = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}"]
    report, crash, status = api.run([*options, str(USER)])
    assert status == 0, report + crash
