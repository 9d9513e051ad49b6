"""A Django project: requests over WSGI and ASGI, and queries of a real SQLite."""

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, json, sys

import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import include, path, re_path

settings.configure(
    SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)

from metricslib import default_registry
from metricslib.integrations import django as measured

measured.instrument()
measured.instrument()
django.setup()


def user(request, number):
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
        cursor.executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)])
    return HttpResponse(str(1 / int(number)))


async def waits(request):
    return HttpResponse("x", status=202)


inner = [path("<int:number>/", user)]
urlpatterns = [path("users/", include(inner)), re_path("^old/(?P<number>[0-9]+)$", user), path("waits", waits)]
PATHS = ["/users/7/", "/users/8/", "/users/0/", "/old/5", "/waits", "/nope"]


def over_wsgi():
    from django.core.wsgi import get_wsgi_application
    from django.test import Client

    get_wsgi_application()
    client = Client(raise_request_exception=False)
    return [client.get(path).status_code for path in PATHS]


def over_asgi():
    from django.core.asgi import get_asgi_application
    from django.test import AsyncClient

    get_asgi_application()
    client = AsyncClient(raise_request_exception=False)

    async def main():
        return [(await client.get(path)).status_code for path in PATHS]

    return asyncio.run(main())


statuses = over_wsgi() if sys.argv[1] == "wsgi" else over_asgi()
open_window = default_registry.snapshot().open
counts = {key: timer.count for key, timer in open_window.timers.items()} | dict(open_window.counters)
print(json.dumps([statuses, settings.MIDDLEWARE, {key: n for key, n in counts.items() if n}]))
"""
DURATION = "http.server.request.duration;method=GET;route="


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_requests_and_queries(interface):
    """By template, of both kinds of routes; by first word of the statement, also in other threads."""
    import json

    command = [sys.executable, "-W", "error", "-c", PROGRAM, interface]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    statuses, middleware, counts = json.loads(done.stdout)
    assert statuses == [200, 200, 500, 200, 202, 404]
    assert middleware == ["metricslib.integrations.django.middleware", "django.middleware.common.CommonMiddleware"]
    assert counts == {
        f"{DURATION}-users-number-;status=2xx": 2,
        f"{DURATION}-users-number-;status=5xx": 1,
        f"{DURATION}-old-number;status=2xx": 1,
        f"{DURATION}-waits;status=2xx": 1,
        f"{DURATION}unmatched;status=4xx": 1,
        "http.server.exceptions;exception=ZeroDivisionError;route=-users-number-": 1,
        "db.client.operation.duration;db=default;operation=SELECT;system=sqlite": 4,
        "db.client.operation.duration;db=default;operation=CREATE;system=sqlite": 4,
        "db.client.operation.duration;db=default;operation=INSERT;system=sqlite": 4,
    }
