"""The demo outbox: what a provider would have been sent, in one file per channel, each dispatch once."""

import asyncio
import mmap
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from channels.channel import Receipt, Request
from streams.errors import OutsideFailing

FILE_NAMES: Final = {"email": "email.mbox", "webhook": "webhook.jsonl", "log": "log.jsonl"}
_MBOX_START: Final = b"From no-reply@localhost "
_FROM_LINE: Final = re.compile(rb"^(>*From )", re.MULTILINE)
_DISPATCH: Final = {
    "email": re.compile(rb"^X-Headrace-Dispatch: ([0-9a-f]{32})$", re.MULTILINE),
    "webhook": re.compile(rb'"dispatch_id":"([0-9a-f]{32})"'),
    "log": re.compile(rb'"dispatch_id":"([0-9a-f]{32})"'),
}
_LENGTH: Final = re.compile(rb"^X-Headrace-Length: (\d+)$", re.MULTILINE)
_DATE: Final = re.compile(rb"^Date: (.+)$", re.MULTILINE)
_TAIL_BYTES: Final = 4 * 1024 * 1024


class Outbox:
    """A provider that appends to a file. A torn tail of a crash is cut when it is opened."""

    def __init__(self, folder: Path, channel: str) -> None:
        """Open or create the channel's file. Raises OutsideFailing when the disk refuses."""
        self.path = folder / FILE_NAMES[channel]
        self._channel = channel
        self._lock = asyncio.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            _cut_torn_tail(self.path, is_mbox=channel == "email")
        except OSError as error:
            raise OutsideFailing(f"{self.path}: {error.strerror}") from error

    async def attempt(self, requests: list[Request]) -> list[Receipt]:
        """Append the requests and sync the file; all are sent then."""
        async with self._lock:
            await asyncio.to_thread(self._append, requests)
        return [Receipt(request.dispatch_id, "sent") for request in requests]

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        """Append only those that the file does not hold yet."""
        async with self._lock:
            held = await asyncio.to_thread(self._dispatch_ids)
        missing = [request for request in requests if request.dispatch_id not in held]
        if missing:
            await self.attempt(missing)
        return [Receipt(request.dispatch_id, "sent") for request in requests]

    def _append(self, requests: list[Request]) -> None:
        data = b"".join(_entry(request, is_mbox=self._channel == "email") for request in requests)
        try:
            with self.path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutsideFailing(f"{self.path}: {error.strerror}; free the disk, then start again") from error

    def _dispatch_ids(self) -> set[str]:
        """Every dispatch id in the file."""
        if not self.path.stat().st_size:
            return set()
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return {found.group(1).decode() for found in _DISPATCH[self._channel].finditer(content)}


def _entry(request: Request, *, is_mbox: bool) -> bytes:
    """A line of JSON, or a message of an mbox (mboxrd: `>` before lines that begin with From)."""
    if not is_mbox:
        return request.body + b"\n"
    head, _, body = request.body.partition(b"\n\n")
    body = _FROM_LINE.sub(rb">\1", body)
    length = b"\nX-Headrace-Length: %d\n\n" % len(body)
    return _MBOX_START + _ctime(head) + b"\n" + head + length + body + b"\n"


def _ctime(head: bytes) -> bytes:
    """The date of the From line, in the form of C's ctime, from the Date header."""
    found = _DATE.search(head)
    text = found[1].decode() if found else ""
    try:
        moment = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S %z")
    except ValueError:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta()
    return f"{moment:%a %b} {moment.day:2d} {moment:%H:%M:%S %Y}".encode()


def _cut_torn_tail(path: Path, *, is_mbox: bool) -> None:
    """Remove an entry that a crash left half written; entries before it are whole."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        start = max(0, size - _TAIL_BYTES)
        file.seek(start)
        tail = file.read()
        end = _whole_mbox(tail) if is_mbox else tail.rfind(b"\n") + 1
        if end < len(tail):
            file.truncate(start + end)


def _whole_mbox(tail: bytes) -> int:
    """How much of the tail is whole messages."""
    at = len(tail)
    while True:
        at = tail.rfind(_MBOX_START, 0, at)
        if at < 0:
            return 0
        if at and tail[at - 1 : at] != b"\n":
            continue
        head, separator, body = tail[at:].partition(b"\n\n")
        length = _LENGTH.search(head)
        if separator and length and len(body) >= int(length[1]) + 1:
            return at + len(head) + len(separator) + int(length[1]) + 1
