"""Forms as browsers and mail programs post them: small, and read without trust."""

from email.parser import BytesParser
from email.policy import HTTP
from typing import Final
from urllib.parse import parse_qsl

FORM_BYTES_MAX: Final = 8 * 1024
FIELDS_MAX: Final = 16


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of `application/x-www-form-urlencoded` or `multipart/form-data`, which RFC 8058 allows alike.

    Whatever else it is has no fields. Of a field that comes twice the first counts.
    """
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
    if "\n" in content_type or "\r" in content_type:
        return []
    message = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n" + body
    )
    found = []
    for part in message.iter_parts() if message.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            found.append((name, content.decode("utf-8", "replace").strip()))
    return found
