"""What the figures were taken with: the machine and the versions."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

__all__ = ["machine"]

_PEERS = ("prometheus_client", "opentelemetry-sdk", "datadog")


def machine() -> dict[str, str]:
    """Return what to name beside figures."""
    about = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in _PEERS:
        try:
            about[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if shutil.which("node"):
        about["node"] = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    return about


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
