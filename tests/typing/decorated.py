"""What a user writes, for a type checker to read: types that it must see, and mistakes that it must find."""

from collections.abc import AsyncIterator, Iterator
from typing import TypeVar, assert_type, overload

from metricslib.decorators import SlowCall
from metricslib.instruments.timer import Span
from metricslib.registry import Registry

metrics = Registry()

T = TypeVar("T")


def say(call: SlowCall) -> None:
    assert_type(call.seconds, float)
    assert_type(call.error, BaseException | None)


@metrics.timed
def bare(x: int, *, y: str = "") -> bytes:
    return b""


@metrics.timed()
def empty(x: int, *, y: str = "") -> bytes:
    return b""


@metrics.timed("checkout", tags={"tier": 1}, exceptions=False, slow=1, on_slow=say)
@metrics.counted("calls")
@metrics.count_exceptions(types=(KeyError, IndexError))
@metrics.in_progress
async def stacked(x: int) -> bytes:
    return b""


@metrics.count_exceptions
def generator(x: int) -> Iterator[str]:
    yield ""


@metrics.in_progress(name="running")
async def async_generator(x: int) -> AsyncIterator[str]:
    yield ""


@metrics.counted
def generic(x: T) -> list[T]:
    return [x]


@overload
def overloaded(x: int) -> int: ...
@overload
def overloaded(x: str) -> str: ...
@metrics.scope("db").timed
def overloaded(x: int | str) -> int | str:
    return x


class Thing:
    @metrics.timed
    def bare(self, x: int) -> bytes:
        return b""

    @metrics.counted("called")
    def called(self, x: int) -> bytes:
        return b""

    @metrics.timed("above")
    @classmethod
    def above(cls, x: int) -> bytes:
        return b""

    @staticmethod
    @metrics.in_progress
    def below(x: int) -> bytes:
        return b""


def spans() -> None:
    timer = metrics.timer("x")
    with timer.time() as span:
        span.tag(status=200)
    assert_type(span, Span)
    assert_type(timer.time().start(), Span)
    assert_type(span.stop(), None)
    assert_type(span.elapsed, float)
    span.start(1)  # type: ignore[call-arg]
    span.tag("x")  # type: ignore[call-arg]


async def awaited() -> None:
    assert_type(await stacked(1), bytes)
    await stacked("1")  # type: ignore[arg-type]


assert_type(bare(1, y=""), bytes)
assert_type(empty(1, y=""), bytes)
assert_type(generator(1), Iterator[str])
assert_type(async_generator(1), AsyncIterator[str])
assert_type(generic(1), list[int])
assert_type(overloaded(""), str)
assert_type(Thing().bare(1), bytes)
assert_type(Thing().called(1), bytes)
assert_type(Thing.above(1), bytes)
assert_type(Thing.below(1), bytes)

bare("1")  # type: ignore[arg-type]
empty(1, z="")  # type: ignore[call-arg]
generator("1")  # type: ignore[arg-type]
async_generator()  # type: ignore[call-arg]
overloaded(b"")  # type: ignore[call-overload]
Thing().bare("1")  # type: ignore[arg-type]
Thing().called()  # type: ignore[call-arg]
Thing.above("1")  # type: ignore[arg-type]
Thing.below("1")  # type: ignore[arg-type]

metrics.timed(5)  # type: ignore[call-overload]
metrics.timed("x", slo=1)  # type: ignore[call-overload]
metrics.timed("x", slow=1, on_slow=abs)  # type: ignore[arg-type]
metrics.counted("x", exceptions=False)  # type: ignore[call-overload]
metrics.count_exceptions(types=int)  # type: ignore[arg-type]
