"""redis-py, against a real Redis."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio

from metricslib.integrations import redis as measured_redis
from tests.peers import eventually, free_port
from tests.sockets import listens

DURATION = "db.client.operation.duration"


@pytest.fixture
def port(need: Callable[..., None], tmp_path: Path) -> Iterator[int]:
    need("redis-server")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    eventually(lambda: listens(port))
    yield port
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def undone(monkeypatch):
    """What is replaced is as before at the end of the test."""
    for owner, name in (
        (redis.Redis, "execute_command"),
        (redis.client.Pipeline, "execute"),
        (redis.asyncio.Redis, "execute_command"),
        (redis.asyncio.client.Pipeline, "execute"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))


def use(port: int) -> None:
    with redis.Redis(port=port, db=2) as client:
        client.set("a", "1")
        assert client.get("a") == b"1"
        with pytest.raises(redis.ResponseError):
            client.lpush("a", "1")
        with client.pipeline() as pipeline:
            pipeline.incr("a")
            pipeline.incr("a")
            assert pipeline.execute() == [2, 3]


def use_async(port: int) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis(port=port, db=2) as client:
            await client.set("a", "1")
            assert await client.get("a") == b"1"
            with pytest.raises(redis.ResponseError):
                await client.lpush("a", "1")
            async with client.pipeline() as pipeline:
                pipeline.incr("a")
                pipeline.incr("a")
                assert await pipeline.execute() == [2, 3]

    asyncio.run(main())


@pytest.mark.parametrize("use", [use, use_async], ids=["sync", "async"])
def test_commands_are_measured(registry, measured, port, use):
    """By name and number of the database; a pipeline is one, and a command that fails counts twice: as both."""
    measured_redis.instrument(instruments=registry)
    measured_redis.instrument(instruments=registry)
    use(port)
    counts = measured()
    assert {key: n for key, n in counts.items() if "exceptions" in key} == {
        "db.client.operation.exceptions;exception=ResponseError": 1
    }
    expected = {f"{DURATION};db=2;operation={name};system=redis": 1 for name in ("SET", "GET", "LPUSH", "PIPELINE")}
    assert {key: n for key, n in counts.items() if key.startswith(DURATION)} == expected


def test_what_is_no_name_of_a_command_makes_no_series():
    """Whatever a program passes on."""
    name = measured_redis.command_name
    assert [name(("get", "a")), name((b"CONFIG GET", "x")), name(("JSON.SET",))] == ["GET", "CONFIG GET", "JSON.SET"]
    assert {name(()), name((5,)), name(("x" * 99,)), name(("a;b",))} == {"OTHER"}
