"""The demo outbox: what a provider would have been sent, in one file per channel, each dispatch once."""

import asyncio
import fcntl
import mmap
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import BinaryIO, Final

from channels.channel import Limits, Receipt, Request
from channels.locks import holder_of
from streams.errors import OutsideFailing

IN_FLIGHT_MAX: Final = 256
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
_LOOK_S: Final = 0.005
LOCK_S_MAX: Final = 30.0
"""Of waiting for another worker's write: more than the default session twice, after which a frozen one is replaced."""


class Outbox:
    """A provider that appends to a file, which several workers may share. A torn tail of a crash is cut.

    Attempts made at the same time are written, and synced, together. One that stands still while it holds the
    file stops those that wait for it: they say who it is after `lock_s_max` seconds.
    """

    name = "outbox"
    limits = Limits(IN_FLIGHT_MAX, IN_FLIGHT_MAX, IN_FLIGHT_MAX)

    def __init__(self, folder: Path, channel: str, *, lock_s_max: float = LOCK_S_MAX) -> None:
        """Open or create the channel's file. Raises OutsideFailing when the disk refuses."""
        self.path = folder / FILE_NAMES[channel]
        self._lock_s_max = lock_s_max
        self._channel = channel
        self._lock = asyncio.Lock()
        self._waiting: list[Request] = []
        self._since = 0
        self._foreign_end = 0
        self._writing: asyncio.Task[None] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            self._size = -1
        except OSError as error:
            raise OutsideFailing(f"{self.path}: {error.strerror}") from error

    async def attempt(self, request: Request) -> Receipt:
        """Append the request, with those that come meanwhile, and sync the file; it is sent then.

        Not if another worker has appended it since it was handed in here: it took over while we stood still.
        """
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
            self._since = max(0, self._size)  # of all that will wait with it: the earliest
        self._waiting.append(request)
        await asyncio.shield(self._writing)
        return Receipt(request.dispatch_id, "sent")

    async def _write(self) -> None:
        """Write what waits when the file is free; whoever comes later waits for the next write."""
        async with self._lock:
            waiting, self._waiting, self._writing = self._waiting, [], None
            await asyncio.to_thread(self._append, waiting, self._since, check=False)

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        """Append only those that the file does not hold yet."""
        async with self._lock:
            await asyncio.to_thread(self._append, requests, 0, check=True)
        return [Receipt(request.dispatch_id, "sent") for request in requests]

    async def close(self) -> None:
        """Wait for what is being written."""
        async with self._lock:
            return

    def _append(self, requests: list[Request], since: int, *, check: bool) -> None:
        """Append those that do not stand in the file from `since` on; unless `check`, only others' writes count.

        Those may lie before our own last write: requests that waited for it were handed in earlier.
        """
        try:
            with self.path.open("r+b") as file:
                self._claim(file)
                if file.seek(0, os.SEEK_END) != self._size:  # somebody else has written, perhaps not to the end
                    _cut_torn_tail(file, is_mbox=self._channel == "email")
                    self._foreign_end = file.tell()
                held = self._dispatch_ids(file, since) if check or since < self._foreign_end else set()
                missing = [request for request in requests if request.dispatch_id not in held]
                file.write(b"".join(_entry(request, is_mbox=self._channel == "email") for request in missing))
                file.flush()
                os.fsync(file.fileno())
                self._size = file.tell()
        except OSError as error:
            raise OutsideFailing(f"{self.path}: {error.strerror}; free the disk, then start again") from error

    def _claim(self, file: BinaryIO) -> None:
        """Lock the file, in a thread: nobody else appends until it is closed."""
        for _ in range(round(self._lock_s_max / _LOOK_S)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sleep(_LOOK_S)
            else:
                return
        raise OutsideFailing(
            f"{self.path}: {holder_of(file)} has held it for {self._lock_s_max:.0f} s; wake or end that process, "
            "then start again"
        )

    def _dispatch_ids(self, file: BinaryIO, since: int) -> set[str]:
        """Every dispatch id in the file from there on; an entry begins there."""
        if file.tell() <= since:
            return set()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return {found.group(1).decode() for found in _DISPATCH[self._channel].finditer(content, since)}


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


def _cut_torn_tail(file: BinaryIO, *, is_mbox: bool) -> None:
    """Remove an entry that a crash left half written; entries before it are whole. Ends at the file's end.

    It is looked for from the end, as far back as the last whole entry begins: no entry is too large to be seen whole.
    """
    size = file.seek(0, os.SEEK_END)
    if size:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = _whole_mbox(content) if is_mbox else content.rfind(b"\n") + 1
        if end < size:
            file.truncate(end)
    file.seek(0, os.SEEK_END)


def _whole_mbox(content: mmap.mmap) -> int:
    """How much of the file is whole messages."""
    size = at = len(content)
    while True:
        at = content.rfind(_MBOX_START, 0, at)
        if at < 0:
            return 0
        if at and content[at - 1 : at] != b"\n":
            continue
        head_end = content.find(b"\n\n", at)
        length = _LENGTH.search(content, at, head_end) if head_end >= 0 else None
        if length and (end := head_end + 2 + int(length[1]) + 1) <= size:
            return end
