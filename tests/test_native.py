"""The C sources: every header compiles alone, so that a test, a fuzzer or another extension can include it first."""

import shlex
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEADERS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/native/*.h"))


def test_headers_are_found():
    assert "metricslib/native/cell.h" in HEADERS


@pytest.mark.parametrize("flags", [[], ["-DCELL_ATOMIC"]], ids=["locked", "atomic"])
@pytest.mark.parametrize("header", HEADERS)
def test_a_header_compiles_alone(header: str, flags: list[str], need: Callable[..., None]):
    need("cc")
    command = ["cc", "-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *flags, "-x", "c", "-"]
    command += ["-Imetricslib/native", "-Iforwarder/native", "-I" + sysconfig.get_path("include")]
    done = subprocess.run(command, input=f'#include "{header}"\n', cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert not done.returncode, f"{shlex.join(command)}\n{done.stderr}"
