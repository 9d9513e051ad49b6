"""Short texts of numbers, times and durations for people. The JSON has the exact values."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

__all__ = ["age", "amount", "moment", "short", "size", "step_of", "time_of_day", "with_unit"]

_DIGITS = 4
_HUGE = 1e15
_LARGEST = 1e308
_TINY = 1e-4
_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_THOUSANDS = ("", "k", "M", "G", "T")
_STEPS_OF: Mapping[str, Mapping[float, str]] = {
    "ms": {60_000: "min", 1000: "s", 1: "ms", 1e-3: "µs", 1e-6: "ns"},
    "B": {1 << 40: "TiB", 1 << 30: "GiB", 1 << 20: "MiB", 1 << 10: "KiB", 1: "B"},
}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def amount(value: float) -> str:
    """Return a number with four significant digits, or an integer with all digits.

    >>> [amount(value) for value in (1234567, 1234.567, 12.3, 0.012345, 0.0, 1e-9)]
    ['1,234,567', '1,235', '12.3', '0.01235', '0', '1e-09']
    """
    magnitude = abs(value)
    if not magnitude:
        return "0"
    if not magnitude < _LARGEST:
        return f"{Decimal(value):.{_DIGITS}g}".lower() if isinstance(value, int) else str(value)
    if magnitude >= _HUGE or magnitude < _TINY:
        return f"{float(value):.{_DIGITS}g}"
    if value == int(value):
        return f"{int(value):,}"
    decimals = max(0, _DIGITS - 1 - math.floor(math.log10(magnitude)))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def short(value: float, digits: int = 3) -> str:
    """Return a number with three significant digits and k, M, G or T for its thousands.

    >>> [short(value) for value in (0, 1.8412, -612, 1204, 12345, 2.9e6, 0.00123, 3e20)]
    ['0', '1.84', '−612', '1,204', '12.3 k', '2.9 M', '0.00123', '3e+20']
    """
    if value < 0:
        return f"−{short(-value, digits)}"
    magnitude = abs(value)
    if not magnitude < 1e15:
        return f"{float(value):.{digits}g}" if magnitude < _LARGEST else str(value)[:8]
    unit = ""
    if magnitude >= 10_000:
        power = min(int(math.log10(magnitude) + 1e-9) // 3, len(_THOUSANDS) - 1)
        value, unit = value / 1000**power, f" {_THOUSANDS[power]}"
        magnitude = abs(value)
    if magnitude < _TINY:
        return "0" if not magnitude else f"{float(value):.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(magnitude)))
    text = f"{value:,.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit


def with_unit(value: float, unit: str) -> tuple[str, str]:
    """Return a short number and its unit: of milliseconds and bytes the one in which it is short.

    >>> [" ".join(with_unit(value, "ms")) for value in (0.0321, 18.42, 2500, 90_000)]
    ['32.1 µs', '18.4 ms', '2.5 s', '1.5 min']
    >>> with_unit(48_200, "B"), with_unit(7, "")
    (('47.1', 'KiB'), ('7', ''))
    """
    step = step_of(value, unit)
    return short(value / step), _STEPS_OF.get(unit, {}).get(step, unit)


def step_of(value: float, unit: str) -> float:
    """Return how many of ``unit`` are in the unit in which a value is short."""
    return next((step for step in _STEPS_OF.get(unit, ()) if abs(value) >= step), 1)


def age(seconds: float) -> str:
    """Return a duration in its two largest units. A negative one, from a clock that was set back, is 0.

    >>> [age(seconds) for seconds in (0.4, 59.9, 61, 7200, 90061)]
    ['0 s', '59 s', '1 min 1 s', '2 h', '1 d 1 h']
    """
    rest = int(max(0.0, seconds))
    parts = []
    for step, unit in _STEPS:
        count, rest = divmod(rest, step)
        parts.append((count, unit))
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count or parts[0] == (0, unit))


def size(count: float) -> str:
    """Return a number of bytes.

    >>> [size(count) for count in (0, 1023, 1536, 64 * 2**20)]
    ['0 B', '1,023 B', '1.5 KiB', '64 MiB']
    """
    power = 0
    while count >= 1024 and power < len(_UNITS) - 1:
        count /= 1024
        power += 1
    return f"{amount(count)} {_UNITS[power]}"


def moment(time: float) -> str:
    """Return a time since the epoch as UTC date and time, or as a number if it is beyond the calendar."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return str(time)


def time_of_day(time: float) -> str:
    """Return the UTC time of day alone."""
    return moment(time).rpartition(" ")[2]
