"""The C sources and what is built of them. Every header compiles alone, so that anything can include it first."""

import os
import shlex
import subprocess
import sys
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


BUILD = """
import runpy, setuptools, sysconfig
real = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: {disabled} if name == "Py_GIL_DISABLED" else real(name)
setuptools.setup = lambda ext_modules: print(sorted(each.name for each in ext_modules))
runpy.run_path("setup.py")
"""


@pytest.mark.parametrize(
    ("disabled", "wanted", "out", "said"),
    [
        (0, "", "['forwarder._aggregator', 'metricslib._speedups']", ""),
        (1, "", "[]", "no interpreter lock"),
        (1, "require", "", "no interpreter lock"),
    ],
)
def test_no_extension_is_built_where_there_is_no_interpreter_lock(disabled: int, wanted: str, out: str, said: str):
    """It is said, and an error where the extensions are required."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(disabled=disabled)],
        env={**os.environ, "METRICSLIB_BUILD": wanted},
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert (done.stdout.strip(), bool(done.returncode)) == (out, not out)
    assert said in done.stderr


def test_the_sketch_is_whole_whatever_fails_and_staging_changes_nothing(need: Callable[..., None], tmp_path: Path):
    """To the last bit, beside adding at once; and where each allocation fails in turn."""
    need("cc")
    program = tmp_path / "test_sketch"
    flags = [
        "-std=c11",
        "-O1",
        "-g",
        "-ffp-contract=off",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
    ]
    build = ["cc", *flags, "-Imetricslib/native", "tests/c/test_sketch.c", "-lm", "-o", str(program)]
    subprocess.run(build, cwd=ROOT, check=True, timeout=60)
    done = subprocess.run([program], text=True, capture_output=True, timeout=60, env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
