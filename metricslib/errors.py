"""The errors of this library. All are subclasses of :class:`MetricsError`.

They are raised at set-up, as early as possible, and have the invalid value as an attribute. Measuring never raises an
exception: bad values are counted instead.
"""

__all__ = ["AlreadyStarted", "CannotListen", "InvalidDestination", "InvalidOption", "InvalidType", "MetricsError"]


class MetricsError(Exception):
    """The base class of all errors of this library."""


class InvalidType(MetricsError, TypeError):
    """An argument has a wrong type, such as a name that is not a string.

    Attributes:
        argument: The name of the argument.
        value: The value.
        expected: What is expected, as text.
    """

    def __init__(self, argument: str, value: object, expected: str) -> None:
        super().__init__(f"{argument} must be {expected}, not {value!r} ({type(value).__name__})")
        self.argument = argument
        self.value = value
        self.expected = expected


class InvalidOption(MetricsError, ValueError):
    """An argument, option or environment variable has an invalid value.

    Attributes:
        option: The name of the argument, option or variable.
        value: The value.
        reason: The reason, as text.
    """

    def __init__(self, option: str, value: object, reason: str) -> None:
        super().__init__(f"{option} = {value!r}: {reason}")
        self.option = option
        self.value = value
        self.reason = reason


class InvalidDestination(MetricsError, ValueError):
    """A destination URL is invalid.

    Attributes:
        url: The URL as given. It may contain a password, so do not log it.
        reason: The reason, as text.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"destination {url!r}: {reason}")
        self.url = url
        self.reason = reason


class AlreadyStarted(MetricsError, RuntimeError):
    """``start()`` was called again with other arguments, or a registry already has a running flusher.

    Attributes:
        running: The arguments or the flusher in use.
        asked: The new ones.
    """

    def __init__(self, running: object, asked: object) -> None:
        super().__init__(f"already started with {running!r}, asked again with {asked!r}; call stop() first")
        self.running = running
        self.asked = asked


class CannotListen(MetricsError, OSError):
    """An address cannot be opened. It is an OSError.

    Attributes:
        address: The address as a URL.
        errno: The error number of the system, or None.
        strerror: The message of the system.
    """

    def __init__(self, address: str, error: OSError | UnicodeError, advice: str = "") -> None:
        reason = getattr(error, "strerror", None) or str(error)
        super().__init__(f"cannot listen on {address}: {reason}{advice}")
        self.address = address
        self.errno, self.strerror = getattr(error, "errno", None), reason

    def __str__(self) -> str:
        return str(self.args[0])  # without the error number, with which OSError would begin
