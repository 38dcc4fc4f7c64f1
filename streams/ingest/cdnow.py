"""The CDNOW data set: eighteen months of real purchases, as events of a replay."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

from streams.codec import to_json
from streams.errors import BadInput

PRODUCT: Final = "cds"


class Line(NamedTuple):
    """One purchase: its line in the file (from 1), customer, day `YYYY-MM-DD`, number of CDs, dollars."""

    number: int
    customer: str
    day: str
    cds: int
    dollars: str


class Entry(NamedTuple):
    """One record to send: its key, the external id, and its value, JSON."""

    key: bytes
    value: bytes


def read_lines(text: str) -> list[Line]:
    """The purchases of the file, one header line first, columns by white space.

    Raises:
        BadInput: a line that is no purchase, with its number.
    """
    lines = []
    for number, row in enumerate(text.splitlines(), 1):
        if number == 1 or not row.strip():
            continue
        try:
            customer, day, cds, dollars = row.split()
            moment = datetime.strptime(day, "%Y%m%d")  # noqa: DTZ007 (a day, not a moment)
            lines.append(Line(number, customer, moment.strftime("%Y-%m-%d"), int(cds), f"{float(dollars):.2f}"))
        except ValueError as error:
            raise BadInput("bad_line", f"line {number}", f"{row.strip()[:60]!r} is no purchase ({error})") from None
    return lines


def entries(lines: list[Line]) -> Iterator[Entry]:
    """First each customer's attributes in order of the file, then each purchase in stable order of date."""
    for customer in dict.fromkeys(line.customer for line in lines):
        attributes = {"type": "attributes", "external_id": customer, "email": f"{customer}@example.com"}
        yield Entry(customer.encode(), to_json(attributes))
    for line in sorted(lines, key=lambda line: line.day):
        yield Entry(line.customer.encode(), _purchase(line))


def _purchase(line: Line) -> bytes:
    """The dollars go in as they stand in the file, a JSON number, so that the sum stays exact."""
    return (
        f'{{"type":"purchase","external_id":"{line.customer}","id":"cdnow-{line.number}","product_id":"{PRODUCT}",'
        f'"currency":"USD","price":{line.dollars},"quantity":1,"time":"{line.day}T00:00:00Z",'
        f'"properties":{{"number_of_cds":{line.cds}}}}}'
    ).encode()


def last_day(lines: list[Line]) -> str:
    """The time at which the replay ends."""
    return max(line.day for line in lines) + "T00:00:00Z"
