"""Measure the commands that a program sends with redis-py::

    from metricslib.integrations import redis

    redis.instrument()

Each command is one value of the timer ``db.client.operation.duration``, until its answer is read, tagged
``system=redis``, ``db`` (the number) and ``operation`` (``GET``); a pipeline is one value, ``operation=PIPELINE``. The
counter ``db.client.operation.exceptions`` counts commands that failed, tagged ``exception``.
"""

from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio

from .._scope import Instruments
from ._base import Tagged, instruments_of, replace
from ._sql import Queries

__all__ = ["instrument"]

_LONGEST = 24  # characters: longer than the name of any command


def instrument(*, instruments: Instruments | None = None) -> None:
    """Measure all commands from now on, of all clients, with asyncio and without. A second call does nothing.

    Args:
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    registry = instruments_of(instruments)
    queries, errors = Queries(registry), Tagged(registry.counter, "db.client.operation.exceptions", "exception")

    def end(client: Any, began: float, operation: str, error: BaseException | None) -> None:
        database = client.connection_pool.connection_kwargs.get("db", 0) if hasattr(client, "connection_pool") else 0
        queries.observe(began, "redis", str(database), operation)
        if error is not None:
            errors(type(error).__qualname__).inc()

    def measured(name: Callable[[tuple[Any, ...]], str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def make(execute: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(client: Any, *args: Any, **options: Any) -> Any:
                began, failed = queries.now(), None
                try:
                    return execute(client, *args, **options)
                except BaseException as error:
                    failed = error
                    raise
                finally:
                    end(client, began, name(args), failed)

            return wrapper

        return make

    def measured_async(name: Callable[[tuple[Any, ...]], str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def make(execute: Callable[..., Any]) -> Callable[..., Any]:
            async def wrapper(client: Any, *args: Any, **options: Any) -> Any:
                began, failed = queries.now(), None
                try:
                    return await execute(client, *args, **options)
                except BaseException as error:
                    failed = error
                    raise
                finally:
                    end(client, began, name(args), failed)

            return wrapper

        return make

    replace(redis.Redis, "execute_command", measured(command_name))
    replace(redis.client.Pipeline, "execute", measured(_pipeline))
    replace(redis.asyncio.Redis, "execute_command", measured_async(command_name))
    replace(redis.asyncio.client.Pipeline, "execute", measured_async(_pipeline))


def command_name(args: tuple[Any, ...]) -> str:
    """Return the name of a command, such as ``CONFIG GET``; ``OTHER`` for what cannot be one."""
    name = args[0] if args else ""
    if isinstance(name, bytes):
        name = name.decode("ascii", "replace")
    if not isinstance(name, str) or len(name) > _LONGEST or not name.replace(" ", "").replace(".", "").isalnum():
        return "OTHER"
    return name.upper()


def _pipeline(_args: tuple[Any, ...]) -> str:
    return "PIPELINE"
