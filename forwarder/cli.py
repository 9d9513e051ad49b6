"""The command line: runs the daemon with the flags and the environment, and returns the exit code.

Exit codes: 0 after a requested stop, and for ``--check-config``, ``--from-statsd``, ``--help`` and ``--version``; 1 if
the forwarder cannot start, or gets a second signal to stop; 2 for an invalid command line or configuration. Each error
is one line on stderr.
"""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from metricslib.errors import CannotListen, InvalidOption, MetricsError

from . import config_file
from .config import (
    CONFIG,
    OPTIONS,
    Config,
    ConfigError,
    masked,
    masked_text,
    nearest,
    of_environment,
    of_file,
    of_flags,
    settle,
)
from .daemon import Daemon
from .options import URLS
from .service import Inherited, InvalidSocket, Notifier
from .statsd_import import convert

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the forwarder until it receives a signal to stop, and return the exit code."""
    arguments = vars(_parser().parse_args(argv))
    check, file, statsd = (arguments.pop(name) for name in ("check_config", "config", "from_statsd"))
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def load() -> Config:
        return _load(arguments, os.environ, file)

    try:
        if statsd:
            return _show_conversion(statsd)
        config = load()
        if check:
            return _check(config)
        inherited = Inherited.of_environment(os.environ, os.getpid())
        Daemon(config, inherited=inherited, notifier=Notifier.of_environment(os.environ, os.getpid())).run(
            load, os._exit
        )
    except (CannotListen, InvalidSocket) as error:
        return _failed(error, 1)
    except MetricsError as error:
        return _failed(error, 2)
    return 0


def _check(config: Config) -> int:
    from metricslib.delivery.store import cannot_write  # imports SQLite, which is needed only with a spool directory

    daemon = Daemon(config)
    if config.spool and (reason := cannot_write(config.spool)):
        raise InvalidOption("spool", config.spool, reason)
    print(daemon.config.as_toml(), end="")
    return 0


def _failed(error: Exception, code: int) -> int:
    print(f"forwarder: {masked_text(str(error))}", file=sys.stderr)
    return code


def _load(flags: Mapping[str, str | list[str] | None], environ: Mapping[str, str], file: str | None) -> Config:
    file = file or environ.get(CONFIG)
    settings = of_file(_read(file), file) if file else {}
    return settle(of_flags(flags), of_environment(environ), settings)


def _show_conversion(file: str) -> int:
    conversion = convert(_read(file), file)
    print(conversion.toml, end="")
    for line in conversion.left_out:
        print(f"not converted: {line}", file=sys.stderr)
    return 0


def _read(file: str) -> str:
    try:
        return config_file.read(file).decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError(file, "", f"cannot be read: {error.strerror}") from error
    except config_file.TooMuch as error:
        raise ConfigError(file, "", str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(file, "", "is not in UTF-8") from error


class _Parser(argparse.ArgumentParser):
    """Suggests the nearest flag, and never shows the value of an unknown one: it may be a URL with a password."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = masked(unknown[0].partition("=")[0])
            flags = [known for action in self._actions for known in action.option_strings]
            meant = next((known for known in flags if known.startswith(flag)), flag)
            self.error(f"unknown argument: {flag}{nearest(meant, dict(zip(flags, flags, strict=True)))}")
        return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="forwarder",
        description="A statsd-compatible server that sends metrics to Graphite.",
        epilog="A flag overrides its environment variable (FORWARDER_LISTEN, …), which overrides the configuration"
        " file. SIGTERM delivers the remaining data and exits; SIGHUP reloads the configuration.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="configuration file, in TOML")
    default = Config().values()
    for name, option in OPTIONS.items():
        if not option.metavar:
            continue
        value = option.kind.raw(default[name])
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar=option.metavar,
            action="append" if option.kind is URLS else "store",
            help=f"{option.help} ({shown})" if shown else option.help,
        )
    parser.add_argument("--check-config", action="store_true", help="print the effective configuration and exit")
    parser.add_argument(
        "--from-statsd", metavar="FILE", help="convert a statsd configuration to TOML, print it and exit"
    )
    parser.add_argument("--version", action="version", version=f"forwarder {_version()}")
    return parser


def _version() -> str:
    try:
        return metadata.version("metricslib")
    except metadata.PackageNotFoundError:
        return "(not installed)"
