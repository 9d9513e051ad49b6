"""A configuration file is read within bounds of size, time and nesting, whatever it holds."""

import os
import time

import pytest

from forwarder import config_file
from forwarder.config_file import LARGEST, NESTING, TooMuch, parse, read


def test_what_is_read_is_what_is_in_the_file(tmp_path):
    """Up to the bound, from a file and from a pipe alike."""
    file = tmp_path / "f.toml"
    file.write_bytes(b"x" * LARGEST)
    assert read(str(file)) == b"x" * LARGEST
    reader, writer = os.pipe()
    os.write(writer, b"interval = 5\n")
    os.close(writer)
    assert read(f"/dev/fd/{reader}") == b"interval = 5\n"
    os.close(reader)


def test_a_file_that_does_not_end_is_refused(tmp_path):
    """One byte too many is enough to know."""
    with pytest.raises(TooMuch, match="has more than 262144 bytes"):
        read("/dev/zero")
    (tmp_path / "f").write_bytes(b"x" * (LARGEST + 1))
    with pytest.raises(TooMuch, match="has more than 262144 bytes"):
        read(str(tmp_path / "f"))


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path):
    """Opening it waits for no writer, and reading has an end."""
    os.mkfifo(tmp_path / "f")
    with pytest.raises(TooMuch, match=r"cannot be read within 0\.01 seconds"):
        read(str(tmp_path / "f"), patience=0.01)


def test_what_is_in_texts_and_comments_is_no_nesting():
    """Brackets and dots count where TOML gives them a meaning."""
    deep = "[{." * 100
    text = f'a = \'{deep}\' # {deep}\nb = "{deep}\\"{deep}"\nc = \'\'\'\n{deep}\n\'\'\'\nd = """\n{deep}\\""""\n'
    assert parse(text).keys() == {"a", "b", "c", "d"}
    assert parse("x = " + "[" * NESTING + "]" * NESTING)
    assert parse(".".join("a" * NESTING) + " = 1")
    assert parse("[a]\n" + "".join(f"b{number} = [[1.5], 2.5]\n" for number in range(1000)))


@pytest.mark.parametrize(
    "text",
    [
        '"""' * 30_000,
        "'''" * 30_001,
        '"\\' * 60_000,
        "'" * 99_999,
        "[" * 90_000,
        "a." * 90_000,
        "a=1\n" * 60_000,
        "[a]\n" * 60_000,
        "x=" + "0x" + "f" * 200_000,
        "x=1" + "0" * 200_000,
        "x=" + "1_" * 90_000,
        "\\" * 200_000,
    ],
)
def test_no_text_takes_long(text):
    """Neither our look at it nor the parser's; a second is many times what any takes."""
    began = time.process_time()
    try:
        parse(text)
    except ValueError:
        pass
    assert time.process_time() - began < 1


def test_the_bound_is_known_before_the_parser_sees_the_text(monkeypatch):
    """It would recurse."""
    monkeypatch.setattr(config_file.tomllib, "loads", lambda text: pytest.fail("parsed"))
    with pytest.raises(TooMuch, match="more than 16 levels of nesting"):
        parse("x = " + "[" * 3000)
