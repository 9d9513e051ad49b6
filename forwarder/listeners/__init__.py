"""Where lines come in: each listener owns its socket and one thread, and feeds one sink."""

from .listener import Listener, Sink
from .tcp import TcpListener
from .udp import UdpListener
from .unix import UnixDatagramListener, UnixStreamListener

__all__ = ["Listener", "Sink", "TcpListener", "UdpListener", "UnixDatagramListener", "UnixStreamListener"]
