"""What a request asks of the page, read from its query string: ``?match=web.*&format=json&limit=100&refresh=5``.

What cannot be understood is refused by name, so that nobody takes a typing mistake for an answer. Parameters of other
names are left alone, for proxies and monitors add their own.
"""

from dataclasses import dataclass
from urllib.parse import parse_qs

from ..errors import InvalidOption
from ..series import KINDS

__all__ = ["FORMATS", "Query"]

FORMATS = ("html", "json")
_ROWS = {"html": 2_000, "json": 10_000}
_MOST_ROWS = 10_000
_LONGEST_REFRESH = 3600
_LONGEST_MATCH = 100
_LONGEST_AFTER = 10_000
_MOST_FIELDS = 50


@dataclass(frozen=True, slots=True)
class Query:
    """A request, understood."""

    format: str = "html"
    match: str = ""
    """A glob over series; empty for all."""
    limit: int = _ROWS["html"]
    """At most so many series; 2,000 on a page and 10,000 as JSON if nothing was asked."""
    refresh: int = 0
    """Load the page again after so many seconds; 0: do not."""
    after: str = ""
    """Only series behind this one, as in ``counter:web.hits``: :attr:`~.report.Report.next` of the page before."""

    @classmethod
    def parse(cls, text: str) -> "Query":
        """Raise :class:`~.errors.InvalidOption` for what cannot be understood. Empty parameters count as not given."""
        try:
            fields = {name: values[-1] for name, values in parse_qs(text, max_num_fields=_MOST_FIELDS).items()}
        except ValueError:
            raise InvalidOption("query", f"{text[:50]}…", f"has more than {_MOST_FIELDS} parameters") from None
        form = fields.get("format", "html")
        if form not in FORMATS:
            raise InvalidOption("format", form[:50], f"must be one of {', '.join(FORMATS)}")
        match = fields.get("match", "")
        if len(match) > _LONGEST_MATCH:
            raise InvalidOption("match", f"{match[:50]}…", f"must have at most {_LONGEST_MATCH} characters")
        after = fields.get("after", "")
        if after and (len(after) > _LONGEST_AFTER or after.partition(":")[0] not in KINDS):
            raise InvalidOption("after", f"{after[:50]}…", "must be the `next` of an earlier answer")
        return cls(
            form,
            match,
            _whole("limit", fields, _MOST_ROWS) or _ROWS[form],
            _whole("refresh", fields, _LONGEST_REFRESH) or 0,
            after,
        )


def _whole(name: str, fields: dict[str, str], most: int) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        more = "; pages of more follow with after=" if name == "limit" else ""
        raise InvalidOption(name, text[:50], f"must be a whole number from 1 to {most}{more}")
    return int(text)
