"""Measure gunicorn's workers. In ``gunicorn.conf.py``::

    from metricslib.integrations import gunicorn

    gunicorn.instrument(globals())

The gauge ``gunicorn.workers`` is the number of workers that are alive: each counts one, and the sum over the workers is
what is shown. The counter ``gunicorn.worker.aborts`` counts workers that the master ends because a request took longer
than ``timeout``; what such a worker has measured is sent first. Measure requests with the integration of the
application's framework, and start metricslib in the application, as without this.
"""

from collections.abc import Callable, MutableMapping
from typing import Any

from .._scope import Instruments
from ._base import instruments_of

__all__ = ["instrument"]

_LAST = 1.0
"""Seconds in which a worker that is aborted may send what it has measured."""


def instrument(settings: MutableMapping[str, Any], *, instruments: Instruments | None = None) -> None:
    """Add hooks to the settings of gunicorn. Hooks that are there already are called first.

    Args:
        settings: The configuration: ``globals()`` of ``gunicorn.conf.py``, below its own hooks.
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    registry = instruments_of(instruments)

    def began(_worker: Any) -> None:
        registry.gauge("gunicorn.workers", read=_one, across="sum")

    def aborted(_worker: Any) -> None:
        from .._shipping import flush

        registry.counter("gunicorn.worker.aborts").inc()
        flush(_LAST)

    _add(settings, "post_worker_init", began)
    _add(settings, "worker_abort", aborted)


def _one() -> int:
    return 1


def _add(settings: MutableMapping[str, Any], name: str, hook: Callable[[Any], None]) -> None:
    before = settings.get(name)

    def both(worker: Any) -> None:
        if before is not None:
            before(worker)
        hook(worker)

    settings[name] = both
