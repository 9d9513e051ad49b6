"""The fixture `need`, on which it hangs that no test is left out in CI without anyone noticing."""

import pytest


def test_what_is_here_is_no_reason_to_stop(need, monkeypatch):
    """A test whose tools are all there runs, in CI and elsewhere."""
    for ci in ("true", ""):
        monkeypatch.setenv("CI", ci)
        need("sh", "tests/conftest.py")


@pytest.mark.parametrize("tool", ["no-such-command", "tests/no-such-file"])
def test_a_missing_tool_skips_on_a_developers_machine(need, monkeypatch, tool):
    """Outside CI a missing tool skips the test, and the reason names the tool."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=tool):
        need("sh", tool)


@pytest.mark.parametrize("tool", ["no-such-command", "tests/no-such-file"])
def test_a_missing_tool_fails_in_ci(need, monkeypatch, tool):
    """In CI a missing tool is a failure: there everything must run."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=tool):
        need("sh", tool)
