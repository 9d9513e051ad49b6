"""The metrics page: as a Flask blueprint, as a WSGI application, or on a port of its own."""

from .blueprint import blueprint
from .server import Server, serve
from .wsgi import application

__all__ = ["Server", "application", "blueprint", "serve"]
