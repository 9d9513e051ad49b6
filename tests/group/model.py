"""Processes of a group as tests play them: with a clock that is told, a queue, and a kernel that may kill them."""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from metricslib.delivery.batch import Batch
from metricslib.drops import DropCounter
from metricslib.group.member import Member
from metricslib.group.shipper import Shipper
from metricslib.window import Aggregates, Window

INTERVAL = 10


def hits(count: float) -> Aggregates:
    found = Aggregates()
    if count:
        found.counters = {"hits": count}
    return found


class Queue:
    """What was sent to one destination and is not confirmed."""

    def __init__(self) -> None:
        self.waiting: dict[int, Batch] = {}

    def put(self, window: Window) -> None:
        self.waiting[window.end] = Batch(window.end, 1, b"%d" % window.counters.get("hits", 0))

    def stamps(self) -> set[int]:
        return {*self.waiting}

    def batches(self, stamps: Collection[int]) -> list[Batch]:
        return [self.waiting[stamp] for stamp in sorted(self.waiting) if stamp in stamps]

    def put_backlog(self, batches: Collection[Batch]) -> None:
        self.waiting.update({batch.stamp: batch for batch in batches})


class Process:
    """A member and its shipper, of a process that counts.

    ``send(window)`` is called for what is sent, and ``confirmed(batch)`` for what arrived. ``once``: its destination
    takes each slot once.
    """

    def __init__(
        self,
        folder: Path,
        send: Callable[[Window], object] = lambda window: None,
        confirmed: Callable[[Batch], object] = lambda batch: None,
        drops: DropCounter | None = None,
        once: bool = False,
    ) -> None:
        self.once = once
        self.queue = Queue()
        self.confirmed = confirmed
        self.member = Member(folder, INTERVAL)
        sending = partial(self.send, send)
        self.shipper = Shipper(
            self.member,
            INTERVAL,
            (lambda window: None) if once else sending,
            lambda: {"graphite": self.queue},
            sending if once else None,
            drops=drops,
        )
        self.counted = 0.0
        self.slot = 0
        self.member.join()

    def count(self, slot: int, n: float, now: float) -> None:
        if slot != self.slot:
            self.slot, self.counted = slot, 0
        self.counted += n
        self.member.append(slot, hits(n), {}, now)

    def close(self, slot: int, now: float) -> None:
        if slot != self.slot:
            self.slot, self.counted = slot, 0
        if self.once:
            self.member.append(slot, hits(0), {}, now, closes=True)
        else:
            self.member.append(slot, hits(self.counted), {}, now, whole=True)

    def send(self, send: Callable[[Window], object], window: Window) -> None:
        send(window)
        self.queue.put(window)

    def confirm(self) -> None:
        """All that was sent arrives."""
        for batch in self.queue.waiting.values():
            self.confirmed(batch)
        self.queue.waiting.clear()

    def step(self, now: float, *, idle: bool = True) -> float:
        """``idle``: all that was sent has arrived by now."""
        if idle:
            self.confirm()
        return self.shipper.step(now)

    def end(self, slot: int, now: float, deliver: Callable[[], bool] = lambda: True) -> bool:
        self.close(slot, now)
        self.member.leave()

        def confirmed() -> bool:
            delivered = deliver()
            if delivered:
                self.confirm()
            return delivered

        return self.shipper.end(now, confirmed)

    def kill(self) -> None:
        """Do what the kernel does: close all files, and so release the locks."""
        self.member.leave()
        self.shipper.give_up()


class Killed(BaseException):
    """The process is dead; nothing catches this."""


class Fault:
    """Kills the process in its ``at``-th change of a file, which is not made, or of a write only a half."""

    CHANGES = ("mkdir", "rename", "replace", "open", "write", "pwrite", "ftruncate", "unlink", "rmdir", "utime")

    def __init__(self, at: int) -> None:
        self.left = at
        self.wrote = 0
        """How many writes were made in whole."""

    def call(self, name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if name == "open" and not arguments[1] & os.O_CREAT:
            return function(*arguments, **options)
        self.left -= 1
        if self.left > 0:
            done = function(*arguments, **options)
            self.wrote += name == "write"
            return done
        if self.left == 0 and name in ("write", "pwrite"):
            descriptor, data, *rest = arguments
            function(descriptor, data[: len(data) // 2], *rest)
        raise Killed


@contextmanager
def killed_at(at: int) -> Iterator[Fault]:
    """Run the block until its ``at``-th change of a file. ``Fault.left`` is above 0 if it had fewer."""
    fault = Fault(at)
    patches = [patch.object(os, name, partial(fault.call, name, getattr(os, name))) for name in Fault.CHANGES]
    for each in patches:
        each.start()
    try:
        yield fault
    except Killed:
        pass
    finally:
        for each in patches:
            each.stop()
