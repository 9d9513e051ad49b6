"""All metadata is in setup.cfg; this file is for what only code can say: which C extensions to try.

Each is optional: where there is no compiler, or it fails, the Python implementation does the work.
``METRICSLIB_BUILD=require`` makes such a failure one of the whole build, and ``METRICSLIB_CFLAGS`` adds flags for the
compiler.

Where Python has no interpreter lock (3.13t, 3.14t) none is tried: they rely on it, and have not been run without.
"""

import os
import sys
import sysconfig
from glob import glob

from setuptools import Extension, setup

# No fused operations: sums are the same to the last bit as the Python implementation's.
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-plt", "-fvisibility=hidden", "-Wall", "-Wextra"]


def extension(name: str, *sources: str) -> Extension:
    return Extension(
        name,
        sorted(sources),
        depends=glob("metricslib/native/*.h") + glob("forwarder/native/*.h"),
        include_dirs=["metricslib/native"],
        extra_compile_args=[*FLAGS, *os.environ.get("METRICSLIB_CFLAGS", "").split()],
        optional=os.environ.get("METRICSLIB_BUILD") != "require",
    )


def extensions() -> list[Extension]:
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        reason = (
            "this Python has no interpreter lock: the C extensions are not built for it, and Python does their work"
        )
        if os.environ.get("METRICSLIB_BUILD") == "require":
            raise SystemExit(reason)
        print(reason, file=sys.stderr)
        return []
    return [
        extension("metricslib._speedups", *glob("metricslib/native/*.c")),
        extension("forwarder._aggregator", *glob("forwarder/native/*.c")),
    ]


setup(ext_modules=extensions())
