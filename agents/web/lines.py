"""Lines into the events topic, in batches, through a session."""

from collections.abc import Callable
from typing import IO, Final

from agents.web.control import to_wire
from agents.web.session import Session
from streams.records import Output
from streams.sending import Sender

BATCH_RECORDS: Final = 500
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
BATCH_BYTES_MAX: Final = 1024 * 1024


async def send_lines(session: Session, stream: IO[bytes], *, end: bool, report: Callable[[int], None]) -> int:
    """Send every line as a record, an empty line as an empty record; with `end`, close the replay.

    A line beyond 16 MiB is sent in pieces, which intake refuses. Returns the number of lines.
    """
    sender = Sender(int(await session.ask("partitions", {})))
    count = size = 0
    batch: list[Output] = []
    while line := stream.readline(LINE_BYTES_MAX):
        batch.append(sender.output(line.rstrip(b"\r\n")))
        count += 1
        size += len(line)
        if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES_MAX:
            await session.ask("append", {"outputs": to_wire(batch)})
            batch, size = [], 0
            report(count)
    batch += sender.ends() if end else []
    if batch:
        await session.ask("append", {"outputs": to_wire(batch)})
    return count
