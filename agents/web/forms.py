"""Forms as browsers and mail programs post them: small, read without trust, in time that grows with their length."""

import re
from itertools import islice, pairwise
from typing import Final
from urllib.parse import parse_qsl

from config import metrics

FORM_BYTES_MAX: Final = 8 * 1024
FIELDS_MAX: Final = 16
CONTENT_TYPE_CHARS_MAX: Final = 200
"""A boundary has at most 70."""

# Not by Python's parser of mail headers: it takes seconds for some values of a few kilobytes.
_BOUNDARY: Final = re.compile(
    r';[ \t]*+boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}+))[ \t]*+(?:;|\Z)', re.IGNORECASE
)
_DISPOSITION: Final = re.compile(
    rb"^content-disposition:[ \t]*+form-data[ \t]*+(;[^\n]*+)", re.IGNORECASE | re.MULTILINE
)
_NAME: Final = re.compile(rb';[ \t]*+name=(?:"([^"\n]*+)"|([^\s";]++))', re.IGNORECASE)


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of `application/x-www-form-urlencoded` or `multipart/form-data`, which RFC 8058 allows alike.

    Whatever else it is has no fields. Of a field that comes twice the first counts.
    """
    if len(content_type) > CONTENT_TYPE_CHARS_MAX:
        metrics.LIMIT_HITS.labels("form_content_type_chars").inc()
        return {}
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        pairs = _pairs(body)
    elif kind == "multipart/form-data":
        pairs = _parts(content_type, body)
    else:
        pairs = []
    return dict(reversed(pairs[:FIELDS_MAX]))


def _pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode("ascii", "replace"), max_num_fields=FIELDS_MAX, keep_blank_values=True)
    except ValueError:
        return []


def _parts(content_type: str, body: bytes) -> list[tuple[str, str]]:
    """Each part that has a name, up to the last boundary; a part that none ends goes to the body's end."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return []
    text = b"\n" + body.replace(b"\r\n", b"\n")
    mark = re.escape((boundary[1] or boundary[2]).encode("latin-1", "replace"))
    found = [*islice(re.finditer(rb"\n--%b(--)?+[ \t]*+(?=\n|\Z)" % mark, text), FIELDS_MAX + 1)]
    pairs = []
    for this, following in pairwise([*found, None]):
        if this is None or this[1]:
            break
        head, _, content = text[this.end() : following.start() if following else len(text)].partition(b"\n\n")
        disposition = _DISPOSITION.search(head)
        name = _NAME.search(disposition[1]) if disposition else None
        if name is not None:
            value = name[2] if name[1] is None else name[1]
            pairs.append((value.decode("utf-8", "replace"), content.decode("utf-8", "replace").strip()))
    return pairs
