"""Forms are read as their senders mean them, and whatever is posted instead takes time that grows with its length."""

from time import perf_counter
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import payload
from hypothesis import given
from hypothesis import strategies as st

from agents.web.forms import CONTENT_TYPE_CHARS_MAX, FIELDS_MAX, FORM_BYTES_MAX, read_form
from config import metrics

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).map(str.strip)
fields = st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z_-]{0,15}", fullmatch=True), words, max_size=6)

PLAIN = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'


class Kept(aiohttp.abc.AbstractStreamWriter):
    """What a client of aiohttp would have written."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self.data += bytes(chunk)

    async def write_eof(self, chunk: bytes = b"") -> None:
        self.data += chunk

    async def drain(self) -> None: ...

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None: ...

    def enable_chunking(self) -> None: ...

    async def write_headers(self, status_line: str, headers: object) -> None: ...


async def posted(given: dict[str, str]) -> tuple[str, bytes]:
    """A form as another program writes it."""
    written = aiohttp.FormData(given, default_to_multipart=True)()
    assert isinstance(written, payload.Payload)
    kept = Kept()
    await written.write(kept)
    return written.headers["Content-Type"], kept.data


@given(fields)
async def test_a_form_is_read_as_it_was_meant(given: dict[str, str]) -> None:
    """What a client of another make writes, in either encoding, has just the fields that it was given."""
    assert read_form("application/x-www-form-urlencoded; charset=utf-8", urlencode(given).encode()) == given
    if given:
        content_type, body = await posted(given)
        assert read_form(content_type, body) == given
        assert read_form(content_type, body.replace(b"\r\n", b"\n")) == given


@pytest.mark.parametrize(
    ("content_type", "body", "found"),
    [
        ("multipart/form-data; boundary=b", PLAIN, {"a": "1"}),
        ('Multipart/Form-Data; charset=x; Boundary="b"; x=y', b"preamble\r\n" + PLAIN + b"epilogue", {"a": "1"}),
        ("multipart/form-data; boundary=b", PLAIN.replace(b"--b--", b"--b \t\r\n\r\n"), {"a": "1"}),
        ("multipart/form-data; boundary=b", PLAIN.replace(b"--b--\r\n", b""), {"a": "1"}),
        ("multipart/form-data; boundary=b", PLAIN.replace(b'"a"', b"a"), {"a": "1"}),
        ("multipart/form-data; boundary=b", PLAIN.replace(b"name=", b'filename="n"; name='), {"a": "1"}),
        ("multipart/form-data; boundary=b", PLAIN.replace(b"1", b"1\r\n--bc"), {"a": "1\n--bc"}),
        ("multipart/form-data; boundary=b", PLAIN.replace(b"--b--", b"") + PLAIN.replace(b"1", b"2"), {"a": "1"}),
        ("multipart/form-data; boundary=b", PLAIN.replace(b"\r\n1", b"\r\nX: y\r\n1"), {"a": "X: y\n1"}),
        *(("multipart/form-data; boundary=b", each, {}) for each in (b"", b"--b", b"--b--", PLAIN[5:], PLAIN[:30])),
        ("multipart/form-data; boundary=b", PLAIN.replace(b"name=", b"filename="), {}),
        ("multipart/form-data; boundary=b", PLAIN.replace(b"form-data", b"attachment"), {}),
        *((each, PLAIN, {}) for each in ("multipart/form-data", "multipart/mixed; boundary=b", "text/plain", "")),
        *((f"multipart/form-data; boundary={each}", PLAIN, {}) for each in ("", '"b', "c", "b" * 71, "b\r\nX: y")),
    ],
)
def test_what_a_form_holds(content_type: str, body: bytes, found: dict[str, str]) -> None:
    """Parts are told apart by the boundary alone and named by their disposition; what is no form has no fields."""
    assert read_form(content_type, body) == found


@given(
    st.text(max_size=60), st.lists(st.sampled_from([b"--b", b"--", b"\r\n", b"\n", PLAIN, b'name="', b";", b"\xff"]))
)
def test_no_form_ever_raises(more: str, pieces: list[bytes]) -> None:
    """Whatever is posted is read or passed over, and has so many fields at most."""
    for content_type in (more, f"multipart/form-data; boundary=b{more}", f"multipart/form-data; boundary=b;{more}"):
        assert len(read_form(content_type, b"".join(pieces))) <= FIELDS_MAX


def part(head: bytes) -> bytes:
    """A form that such a head of a part fills up."""
    pieces = b"--b\r\nContent-Disposition: " + head * 450 + b"\r\n\r\nx\r\n"
    return (pieces * 16)[:FORM_BYTES_MAX]


EVIL = [
    *(
        ("multipart/form-data; boundary=b; " + '"' * 8_000, part(b"()")),
        ("multipart/form-data; boundary=" + "(" * 6_000, b""),
    ),
    *(
        ("multipart/form-data; boundary=b", part(each))
        for each in (b"()", b'"', b";name=", b"form-data;", b"\t", b"\\")
    ),
    ("multipart/form-data; boundary=b", b"Content-Disposition:form-data;\n" * 260),
    ("multipart/form-data; boundary=b", b"\n--b" + b" " * 8_000),
    ("multipart/form-data; boundary=b", b"\n--b" * 2_000),
    ("multipart/form-data; boundary=" + "\t" * 150, b"--" * 4_000),
]


@pytest.mark.parametrize(("content_type", "body"), EVIL, ids=range(len(EVIL)))
def test_no_form_is_slow_to_read(content_type: str, body: bytes) -> None:
    """Forms of eight kilobytes made to be hard are read in a moment."""
    began = perf_counter()
    read_form(content_type, body)

    assert perf_counter() - began < 1


def test_a_long_content_type_is_not_read() -> None:
    """A content type beyond what any form needs is refused as it stands, and counted."""
    hits = metrics.LIMIT_HITS.labels("form_content_type_chars")._value
    before, long = hits.get(), "multipart/form-data; boundary=b;" + " " * CONTENT_TYPE_CHARS_MAX

    assert read_form(long, PLAIN) == {}
    assert hits.get() == before + 1
