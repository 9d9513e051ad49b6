"""The page as a Flask blueprint::

    app.register_blueprint(metricslib.view.blueprint(), url_prefix="/metrics")

Flask is imported when a blueprint is asked for, and nowhere else in the library.
"""

from functools import partial
from typing import TYPE_CHECKING, Never

from ..flusher import Flusher
from ..hints import unknown_option
from .access import Allow, Page
from .answer import METHODS, POSTED, ROUTES, Extra
from .request import from_environ

if TYPE_CHECKING:
    import flask

__all__ = ["blueprint"]


def blueprint(
    flusher: Flusher | None = None,
    *,
    token: str | None = None,
    allow: Allow | None = None,
    open: bool = False,
    name: str = "metricslib",
    title: str = "metricslib",
    extra: Extra | None = None,
    **unknown: Never,
) -> "flask.Blueprint":
    """Return a Flask blueprint with the metrics page at its root.

    ::

        app.register_blueprint(metricslib.view.blueprint(), url_prefix="/metrics")

    Who may read it is decided by ``token``, ``allow`` or ``open``. Without a decision, a request gets status 403,
    unless the application is in debug mode, and the request comes from this machine and not through a proxy.

    Args:
        flusher: The flusher whose registry and destinations are shown. None: the default registry, whose intervals end
            from the registration of the blueprint on, with or without :func:`metricslib.start`.
        token: Readers must know this token, see :func:`metricslib.view.wsgi`.
        allow: A function that gets each :class:`request <metricslib.view.Request>`, and returns True if it may read the
            page. It may also use ``flask.request`` and ``flask.session``.
        open: True: everybody may read the page.
        name: The name of the blueprint. Two blueprints in one application need different names.
        title: The title of the page.
        extra: A function that returns additional sections of the page, see :func:`metricslib.view.wsgi`.

    Raises:
        ImportError: If Flask is not installed.
        InvalidOption: If an argument has an invalid value, or if there is more than one decision.
    """
    if unknown:
        raise unknown_option(blueprint, unknown)
    try:
        import flask
    except ModuleNotFoundError as error:
        message = "the page as a blueprint needs Flask, which is not installed: pip install 'metricslib[view]'"
        raise ImportError(message, name=error.name) from error
    page = Page(
        flusher,
        "metrics.view.blueprint",
        title=title,
        extra=extra,
        token=token,
        allow=allow,
        open=open,
        debug=lambda: flask.current_app.debug,
    )
    made = flask.Blueprint(name, __name__)

    def answered(path: str) -> flask.Response:
        answer = page.answer(from_environ(flask.request.environ, path, flask.request.path))
        return flask.Response(answer.parts, answer.status, list(answer.headers))

    def below(rule: str, name: str = "") -> flask.Response:
        return answered(f"/{rule}{name}")

    def metrics() -> flask.Response:
        return answered("/" if flask.request.path.endswith("/") else "")

    def begin(_: object) -> None:
        page.view.find()

    made.add_url_rule("/", view_func=metrics, methods=METHODS, strict_slashes=False, provide_automatic_options=False)
    for rule in ROUTES:
        path = f"/{rule}<path:name>" if rule.endswith("/") else f"/{rule}"
        endpoint = f"{rule} below" if rule.endswith("/") else rule
        methods = (*METHODS, "POST") if any(each.startswith(rule) for each in POSTED) else METHODS
        made.add_url_rule(
            path,
            endpoint,
            partial(below, rule),
            methods=methods,
            provide_automatic_options=False,
            strict_slashes=False,
        )
    made.record(begin)
    return made
