"""The metrics page: as a Flask blueprint, as a WSGI or ASGI application, or on a port of its own."""

from .asgi import asgi
from .blueprint import blueprint
from .request import Request
from .server import Server, serve
from .wsgi import wsgi

__all__ = ["Request", "Server", "asgi", "blueprint", "serve", "wsgi"]
