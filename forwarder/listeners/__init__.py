"""Where lines come in: each listener owns its socket and one thread, and feeds one sink."""

from .commands import CommandListener
from .listener import Listener, Sink
from .numbered import NumberedListener, NumberedTcpListener, NumberedUnixListener
from .tap import Taker, Tap
from .tcp import TcpListener
from .udp import UdpListener
from .unix import UnixDatagramListener, UnixStreamListener

__all__ = ["Listener", "Sink", "Taker", "Tap"]
__all__ += ["NumberedListener", "NumberedTcpListener", "NumberedUnixListener"]
__all__ += ["CommandListener", "TcpListener", "UdpListener", "UnixDatagramListener", "UnixStreamListener"]
