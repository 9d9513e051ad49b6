"""The page as a Flask blueprint::

    app.register_blueprint(metricslib.view.blueprint(), url_prefix="/metrics")

Flask is imported when a blueprint is asked for, and nowhere else in the library.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Never

from .._shipping import ensure_flusher
from ..flusher import Flusher
from ..hints import unknown_option
from .answer import HEALTH, METHODS, SERIES, TOP, Extra, View
from .render import ASSETS

if TYPE_CHECKING:
    import flask

__all__ = ["blueprint"]


def blueprint(
    flusher: Flusher | None = None,
    *,
    name: str = "metricslib",
    title: str = "metricslib",
    extra: Extra | None = None,
    **unknown: Never,
) -> "flask.Blueprint":
    """Return a Flask blueprint with the metrics page at its root.

    ::

        app.register_blueprint(metricslib.view.blueprint(), url_prefix="/metrics")

    Args:
        flusher: The flusher whose registry and destinations are shown. None: the default registry, whose intervals end
            from the registration of the blueprint on, with or without :func:`metricslib.start`.
        name: The name of the blueprint. Two blueprints in one application need different names.
        title: The title of the page.
        extra: A function that returns additional sections of the page, see :func:`metricslib.view.application`.

    Raises:
        ImportError: If Flask is not installed.
    """
    if unknown:
        raise unknown_option(blueprint, unknown)
    try:
        import flask
    except ModuleNotFoundError as error:
        message = "the page as a blueprint needs Flask, which is not installed: pip install 'metricslib[view]'"
        raise ImportError(message, name=error.name) from error
    view = View.of(flusher, title=title, extra=extra) if flusher else View(ensure_flusher, title=title, extra=extra)
    made = flask.Blueprint(name, __name__)

    def answered(path: str) -> flask.Response:
        request = flask.request
        query, encodings = request.query_string.decode("latin-1"), request.headers.get("Accept-Encoding", "")
        accept = request.headers.get("Accept", "")
        answer = view.answer(request.method, query, path, mount=request.path, encodings=encodings, accept=accept)
        return flask.Response(answer.parts, answer.status, list(answer.headers))

    def metrics() -> flask.Response:
        return answered("/" if flask.request.path.endswith("/") else "")

    def begin(_: object) -> None:
        view.find()

    made.add_url_rule("/", view_func=metrics, methods=METHODS, strict_slashes=False, provide_automatic_options=False)
    below: dict[str, Callable[..., flask.Response]] = {
        f"/{HEALTH}": lambda: answered(f"/{HEALTH}"),
        f"/{TOP}": lambda: answered(f"/{TOP}"),
        f"/{SERIES}<path:name>": lambda name: answered(f"/{SERIES}{name}"),
        f"/{ASSETS}<name>": lambda name: answered(f"/{ASSETS}{name}"),
    }
    for rule, function in below.items():
        made.add_url_rule(rule, rule.split("/")[1], function, methods=METHODS, provide_automatic_options=False)
    made.record(begin)
    return made
