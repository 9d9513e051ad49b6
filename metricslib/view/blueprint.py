"""The page as a Flask blueprint::

    app.register_blueprint(metricslib.view.blueprint(), url_prefix="/metrics")

Flask is imported when a blueprint is asked for, and nowhere else in the library.
"""

from typing import TYPE_CHECKING, Never

from .._shipping import ensure_flusher
from ..flusher import Flusher
from ..hints import unknown_option
from .answer import METHODS, Extra, View

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
    """Return a new Flask blueprint with the page at its root.

    Without ``flusher`` it shows the default registry, whose intervals end from the moment the blueprint is
    registered, with or without ``metricslib.start()``. Two blueprints in one application need two names. ``title``
    and ``extra`` are those of :func:`~.wsgi.application`. Raises :class:`ImportError` where Flask is not installed.
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

    def metrics() -> flask.Response:
        request = flask.request
        answer = view.answer(request.method, request.query_string.decode("latin-1"))
        return flask.Response(answer.parts, answer.status, list(answer.headers))

    def begin(_: object) -> None:
        view.find()

    made.add_url_rule("/", view_func=metrics, methods=METHODS, strict_slashes=False, provide_automatic_options=False)
    made.record(begin)
    return made
