"""Celery, with a worker in threads and a broker in memory. Its process pools are in the matrix of servers."""

import logging

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker

from metricslib.integrations import celery
from tests.peers import eventually

DURATION = "messaging.process.duration"


@pytest.fixture(scope="module")
def app():
    app = Celery("shop", broker="memory://", backend="cache+memory://")
    app.conf.update(task_always_eager=False, worker_hijack_root_logger=False)

    @app.task(name="shop.add")
    def add(a, b):
        return a + b

    @app.task(name="shop.fail")
    def fail():
        raise KeyError("x")

    @app.task(name="shop.again", bind=True, max_retries=1)
    def again(self):
        if not self.request.retries:
            raise self.retry(countdown=0)
        return "done"

    return app


@pytest.fixture
def root_logger():
    """A worker sets up the root logger; it is as before at the end of the test."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_tasks_are_measured(app, registry, measured, monkeypatch, root_logger):
    """How they ran and ended, how long they waited, and what was tried again."""
    monkeypatch.setattr(celery.Tasks, "connected", None)
    celery.instrument(instruments=registry)

    def ran():
        return {key: t for key, t in registry.snapshot().open.timers.items() if key.startswith(DURATION)}

    celery.instrument(instruments=registry)
    with start_worker(app, pool="threads", perform_ping_check=False, shutdown_timeout=60):
        task = app.tasks
        assert [task["shop.add"].delay(n, 1).get(timeout=60) for n in range(3)] == [1, 2, 3]
        with pytest.raises(KeyError):
            task["shop.fail"].delay().get(timeout=60)
        assert task["shop.again"].delay().get(timeout=60) == "done"
        eventually(lambda: sum(timer.count for timer in ran().values()) == 6)
    assert measured() == {
        f"{DURATION};state=SUCCESS;task=shop.add": 3,
        f"{DURATION};state=FAILURE;task=shop.fail": 1,
        f"{DURATION};state=RETRY;task=shop.again": 1,
        f"{DURATION};state=SUCCESS;task=shop.again": 1,
        "celery.task.wait;task=shop.add": 3,
        "celery.task.wait;task=shop.fail": 1,
        "celery.task.wait;task=shop.again": 2,
        "celery.task.retries;task=shop.again": 1,
        "celery.task.exceptions;exception=KeyError;task=shop.fail": 1,
        "celery.tasks.active": 0,
    }


class Request:
    def __init__(self, eta, headers):
        self.eta, self.headers = eta, headers


@pytest.mark.parametrize(
    ("eta", "headers", "expected"),
    [
        (None, {celery.SENT: 990.0}, 10.0),
        ("1970-01-01T00:16:35+00:00", {celery.SENT: 990.0}, 5.0),
        ("1970-01-01T00:16:00+00:00", {celery.SENT: 990.0}, 10.0),
        ("soon", {celery.SENT: 990.0}, 10.0),
        (None, {celery.SENT: 1005.0}, 0.0),  # the other host's clock is ahead
        (None, {}, None),
        (None, None, None),
        (None, {celery.SENT: "yesterday"}, None),
    ],
)
def test_a_task_waits_from_when_it_was_sent_or_due(monkeypatch, eta, headers, expected):
    """Whatever a message has in its headers."""
    monkeypatch.setattr(celery.time, "time", lambda: 1000.0)
    assert celery.waited(Request(eta, headers)) == expected
