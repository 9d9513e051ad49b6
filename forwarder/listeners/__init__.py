"""Listeners: each one owns a socket and a thread, and feeds one sink."""

from .base import Listener, Sink
from .console import CommandListener
from .numbered import NumberedListener, NumberedTcpListener, NumberedUnixListener
from .tcp import TcpListener
from .tee import Consumer, Tee
from .udp import UdpListener
from .unix import UnixDatagramListener, UnixStreamListener

__all__ = ["Listener", "Sink", "Consumer", "Tee"]
__all__ += ["NumberedListener", "NumberedTcpListener", "NumberedUnixListener"]
__all__ += ["CommandListener", "TcpListener", "UdpListener", "UnixDatagramListener", "UnixStreamListener"]
