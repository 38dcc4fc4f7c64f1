"""The demo outbox: mails that an independent reader reads, each dispatch once, torn tails cut."""

import asyncio
import fcntl
import mailbox
import multiprocessing
import os
import signal
import threading
from contextlib import closing
from email import message_from_bytes
from email.message import Message
from multiprocessing.synchronize import Event as EventType
from pathlib import Path

import pytest

from channels.channel import Request
from channels.mail_address import MailAddress
from channels.mime import Mail, build_mail
from channels.outbox import Outbox
from streams.errors import OutsideFailing


def read_mails(path: Path) -> list[Message]:
    """The mails of an mbox, by Python's own reader."""
    with closing(mailbox.mbox(path)) as box:
        return [message_from_bytes(box.get_bytes(key)) for key in box.iterkeys()]


IDS = [f"{at:032x}" for at in range(3)]


def request_of(dispatch_id: str, text: str = "From here\nto there") -> Request:
    """A rendered mail."""
    sender, to = MailAddress("A", "a@b.c"), MailAddress("", "mel@b.c")
    mail = Mail(dispatch_id, "hello", 852_076_800_000, sender, to, None, "Grüße", text, "<p>Hi</p>")
    return Request(dispatch_id, "mel@b.c", build_mail(mail))


async def test_an_independent_reader_reads_what_was_sent(tmp_path: Path) -> None:
    """Python's own mailbox reader finds every mail with its subject, address, dispatch id and both bodies."""
    outbox = Outbox(tmp_path, "email")
    await asyncio.gather(*(outbox.attempt(request_of(name)) for name in IDS))
    mails = read_mails(tmp_path / "email.mbox")
    assert [mail["X-Headrace-Dispatch"] for mail in mails] == IDS
    for mail in mails:
        plain, html = [part.get_payload(decode=True) for part in mail.walk() if not part.is_multipart()]
        assert isinstance(plain, bytes)
        assert plain.replace(b">From", b"From").rstrip() == b"From here\nto there"
        assert isinstance(html, bytes)
        assert html.rstrip() == b"<p>Hi</p>"
        assert mail["To"] == "mel@b.c"


async def test_a_torn_tail_is_cut_and_settled_once(tmp_path: Path) -> None:
    """Cut anywhere in the last mail, the reopened outbox holds each dispatch exactly once after settling."""
    outbox = Outbox(tmp_path, "email")
    await outbox.attempt(request_of(IDS[0]))
    whole = outbox.path.stat().st_size
    await outbox.attempt(request_of(IDS[1]))
    data = outbox.path.read_bytes()
    for cut in range(whole, len(data) + 1, 7):
        outbox.path.write_bytes(data[:cut])
        reopened = Outbox(tmp_path, "email")
        await reopened.settle([request_of(name) for name in IDS])
        assert [mail["X-Headrace-Dispatch"] for mail in read_mails(outbox.path)] == IDS


async def test_a_large_mail_is_not_cut_by_the_next_who_writes(tmp_path: Path) -> None:
    """A whole mail or line of many megabytes stays whole for a reopened outbox, and a torn one behind it is cut."""
    text = ("ü" * 80 + "\n") * 10_000  # as large as text and HTML together may be, and thrice that when it is quoted
    large = [request_of(name, text) for name in IDS]
    assert len(large[0].body) > 2**22
    await Outbox(tmp_path, "email").attempt(large[0])
    path = tmp_path / "email.mbox"
    whole = path.stat().st_size
    await Outbox(tmp_path, "email").attempt(large[1])
    for cut in (path.stat().st_size, path.stat().st_size - 1, whole + 2**22 + 9, whole + 9, whole - 1, whole - 2**22):
        os.truncate(path, cut)
        await Outbox(tmp_path, "email").settle(large)
        assert [mail["X-Headrace-Dispatch"] for mail in read_mails(path)] == IDS, cut

    lines = [b'{"dispatch_id":"%s","text":"%s"}' % (name.encode(), b"x" * 2**23) for name in IDS]
    for name, line in zip(IDS[:2], lines, strict=False):
        await Outbox(tmp_path, "webhook").attempt(Request(name, "", line))
    os.truncate(tmp_path / "webhook.jsonl", 2 * len(lines[0]) - 9)
    await Outbox(tmp_path, "webhook").settle([Request(*each) for each in zip(IDS, ("",) * 3, lines, strict=True)])
    assert (tmp_path / "webhook.jsonl").read_bytes().splitlines() == lines


async def test_json_lines_are_settled_once(tmp_path: Path) -> None:
    """A line of JSON that a crash left half written is cut, and written again whole."""
    outbox = Outbox(tmp_path, "webhook")
    bodies = [f'{{"dispatch_id":"{name}"}}'.encode() for name in IDS]
    await outbox.attempt(Request(IDS[0], "", bodies[0]))
    with outbox.path.open("ab") as file:
        file.write(bodies[1][:9])
    await Outbox(tmp_path, "webhook").settle([Request(name, "", body) for name, body in zip(IDS, bodies, strict=True)])
    assert outbox.path.read_bytes().splitlines() == bodies


async def test_what_waited_while_another_wrote_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stood still before a write appends nothing that its heir has appended meanwhile, in that write or later.

    The requests that wait for the write were handed in before the heir wrote, too.
    """
    frozen, heir = Outbox(tmp_path, "webhook"), Outbox(tmp_path, "webhook")
    requests = [Request(name, "", f'{{"dispatch_id":"{name}"}}'.encode()) for name in IDS]
    await frozen.attempt(requests[0])
    woken, writes, real = threading.Event(), list[int](), Outbox._append

    def append(box: Outbox, asked: list[Request], since: int, *, check: bool) -> None:
        if box is frozen:
            writes.append(len(asked))
            assert woken.wait(10)
        real(box, asked, since, check=check)

    monkeypatch.setattr(Outbox, "_append", append)
    first = asyncio.create_task(frozen.attempt(requests[1]))
    while not writes:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    second = asyncio.create_task(frozen.attempt(requests[2]))
    await asyncio.sleep(0)
    await heir.settle(requests[1:])
    woken.set()
    await asyncio.gather(first, second)

    assert writes == [1, 1]
    assert frozen.path.read_bytes().splitlines() == [request.body for request in requests]


def hold(path: Path, held: EventType) -> None:
    """Lock a file in this process, and stand still."""
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        held.set()
        signal.pause()


async def test_one_that_stands_still_with_the_file_is_named_and_waited_for_no_longer_than_stated(
    tmp_path: Path,
) -> None:
    """Behind a worker frozen amid its write another gives up in time, and says which process to wake or to end."""
    outbox = Outbox(tmp_path, "webhook", lock_s_max=0.2)
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=hold, args=(outbox.path, held))
    holder.start()
    try:
        assert await asyncio.to_thread(held.wait, 20)
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGSTOP)
        request = Request(IDS[0], "", f'{{"dispatch_id":"{IDS[0]}"}}'.encode())
        async with asyncio.timeout(5):
            with pytest.raises(OutsideFailing, match=rf"process {holder.pid}, which is stopped .*wake or end"):
                await outbox.attempt(request)
        assert outbox.path.read_bytes() == b""
    finally:
        holder.kill()
        holder.join()

    await outbox.attempt(request)
    assert outbox.path.read_bytes() == request.body + b"\n"
