"""Parses the query string of a request to the page: ``?match=web.*&format=json&limit=100&refresh=5``.

An invalid value is an error that names the parameter. Unknown parameters are ignored, because proxies and monitors add
their own.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qs, urlencode

from ..errors import InvalidOption
from ..series import KINDS, Kind

__all__ = ["FORMATS", "RANGES", "SORTS", "Query"]

FORMATS = ("html", "json", "prometheus", "openmetrics")
RANGES = {"5m": 300, "1h": 3600, "1d": 86_400}
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
SORTS = ("name", "value", "change")
_ROWS = {"html": 2_000, "json": 10_000, "prometheus": 100_000, "openmetrics": 100_000}
_MOST_ROWS = 10_000
_LONGEST_REFRESH = 3600
_LONGEST = 100
_LONGEST_AFTER = 10_000
_MOST_FIELDS = 50
_MOST_PAGES = 1_000_000
_MOST_PERCENTILES = 20
_PERCENTILE = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?")
_MOST_TILES = 60
_MOST_TIME = 999_999_999_999


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query string."""

    format: str = "html"
    match: str = ""
    """A glob pattern for series; empty for all."""
    limit: int = _ROWS["html"]
    """At most so many series; 10,000 as JSON if nothing was asked, and 100,000 for Prometheus."""
    refresh: int = 0
    """Seconds after which the page reloads; 0: never."""
    after: str = ""
    """Only series after this one, such as ``counter:web.hits``: :attr:`~.report.Report.next` of the previous page."""
    query: str = ""
    """What to look for: see :mod:`~.search`."""
    prefix: str = ""
    """Only names that are this, or begin with it and a dot."""
    kind: Kind | None = None
    tag: str = ""
    """Only names with a tag of this key."""
    sort: str = "name"
    page: int = 1
    range: str = "1h"
    by: str = ""
    """The tag by which a metric is broken down."""
    percentiles: tuple[float, ...] = PERCENTILES
    """Those of the distribution of a metric's page."""
    since: int = 0
    """Answer only if an interval has ended after this time; 0: in any case."""
    begin: int = 0
    """Where the charts begin, in seconds since the epoch; 0: as ``range`` says."""
    until: int = 0
    """Where they end; 0: with the last interval."""
    values: bool = False
    """Answer with the values in the charts instead."""
    series: tuple[str, ...] = ()
    """What is on a board."""
    warn: tuple[float, ...] = ()
    crit: tuple[float, ...] = ()
    night: bool = False
    """Whether a board is dark."""
    title: str = ""
    """What stands above a board."""

    @classmethod
    def parse(cls, text: str, format: str = "html") -> "Query":
        """Parse ``text``; ``format`` is that of a text without one.

        Empty parameters count as not given. Raises :class:`~.errors.InvalidOption`.
        """
        try:
            fields = {name: values[-1] for name, values in parse_qs(text, max_num_fields=_MOST_FIELDS).items()}
        except ValueError:
            raise InvalidOption("query", f"{text[:50]}…", f"has more than {_MOST_FIELDS} parameters") from None
        form = _one_of("format", fields, FORMATS, format)
        after = fields.get("after", "")
        if after and (len(after) > _LONGEST_AFTER or after.partition(":")[0] not in KINDS):
            raise InvalidOption("after", f"{after[:50]}…", "must be the `next` of an earlier answer")
        begin, until = (_whole(name, fields, _MOST_TIME) or 0 for name in ("from", "until"))
        if until and until <= begin:
            raise InvalidOption("until", fields["until"][:50], "must be later than from")
        return cls(
            form,
            _short("match", fields),
            _whole("limit", fields, _MOST_ROWS) or _ROWS[form],
            _whole("refresh", fields, _LONGEST_REFRESH) or 0,
            after,
            _short("query", fields),
            fields.get("prefix", ""),
            cast("Kind | None", _one_of("kind", fields, KINDS, "") or None),
            fields.get("tag", ""),
            _one_of("sort", fields, SORTS, "name"),
            _whole("page", fields, _MOST_PAGES) or 1,
            _one_of("range", fields, tuple(RANGES), "1h"),
            fields.get("by", ""),
            _percentiles(fields.get("percentiles", "")) or PERCENTILES,
            _whole("since", fields, _MOST_TIME) or 0,
            begin,
            until,
            "values" in fields,
            _listed("series", fields, _MOST_TILES),
            _numbers("warn", fields),
            _numbers("crit", fields),
            "night" in fields,
            _short("title", fields),
        )

    def board(self, **changes: object) -> str:
        """Return the query string of a link to the same board, but for ``changes``."""
        asked: dict[str, object] = {
            "series": ",".join(self.series),
            "warn": ",".join(f"{limit:.15g}" for limit in self.warn),
            "crit": ",".join(f"{limit:.15g}" for limit in self.crit),
            "title": self.title,
            "range": self.range,
            "night": int(self.night),
            "from": self.begin,
            "until": self.until,
            **changes,
        }
        return "?" + urlencode({name: str(value) for name, value in asked.items() if value})

    def link(self, **changes: object) -> str:
        """Return the query string of a link to the grid that keeps what was asked, but for ``changes``."""
        names = ("query", "match", "prefix", "kind", "tag", "sort", "refresh")
        asked: Mapping[str, object] = {name: getattr(self, name) for name in names}
        asked = {**asked, "from": self.begin, "until": self.until, **changes}
        if asked["sort"] == "name":
            asked = {**asked, "sort": ""}
        return "?" + urlencode({name: str(value) for name, value in asked.items() if value})


def _short(name: str, fields: Mapping[str, str]) -> str:
    text = fields.get(name, "")
    if len(text) > _LONGEST:
        raise InvalidOption(name, f"{text[:50]}…", f"must have at most {_LONGEST} characters")
    return text


def _listed(name: str, fields: Mapping[str, str], most: int) -> tuple[str, ...]:
    found = tuple(part.strip() for part in fields.get(name, "").split(",") if part.strip())
    if len(found) > most:
        raise InvalidOption(name, f"{fields[name][:50]}…", f"may have at most {most}, with commas between them")
    return found


def _numbers(name: str, fields: Mapping[str, str]) -> tuple[float, ...]:
    try:
        found = tuple(map(float, _listed(name, fields, _MOST_TILES)))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise InvalidOption(name, fields[name][:50], "must be numbers, with commas between them")
    return found


def _percentiles(text: str) -> tuple[float, ...]:
    """Return numbers above 0 and up to 100, as they are written: ``50,99.9``."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) > _MOST_PERCENTILES or not all(_PERCENTILE.fullmatch(part) for part in parts):
        raise InvalidOption("percentiles", text[:50], f"must be at most {_MOST_PERCENTILES} numbers such as 50,99.9")
    found = tuple(dict.fromkeys(map(float, parts)))
    if not all(0 < percent <= 100 for percent in found):
        raise InvalidOption("percentiles", text[:50], "must be above 0, and at most 100")
    return found


def _one_of(name: str, fields: Mapping[str, str], known: tuple[str, ...], default: str) -> str:
    text = fields.get(name, default)
    if text != default and text not in known:
        raise InvalidOption(name, text[:50], f"must be one of {', '.join(known)}")
    return text


def _whole(name: str, fields: Mapping[str, str], most: int) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 13 and 1 <= int(text) <= most):
        more = "; pages of more follow with after=" if name == "limit" else ""
        raise InvalidOption(name, text[:50], f"must be a whole number from 1 to {most}{more}")
    return int(text)
