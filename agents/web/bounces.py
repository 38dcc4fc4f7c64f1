"""Bounces and complaints as mail servers send them: each report's proof is verified, then it goes into events."""

import mailbox
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import structlog

from agents.web.control import to_wire
from agents.web.replay import Asked
from streams import topics
from streams.codec import partition_of, to_json
from streams.engagement import Claims, EngagementKind, SigningKeys, read_return_path, sign, verify
from streams.engagement_item import ADDRESS_CHARS_MAX, TYPE
from streams.errors import BadInput, BadSetting
from streams.ingest.mail_report import REPORT_BYTES_MAX, MailReport, read_mail_report
from streams.records import Output

_FROM: Final = b"From "
_NAMES: Final[dict[EngagementKind, str]] = {
    "bounce": "bounces",
    "soft_bounce": "soft_bounces",
    "complaint": "complaints",
}


class Mail(NamedTuple):
    """A mail, and what to do once it needs no second look."""

    data: bytes
    done: Any


async def take_bounces(session: Asked, source: str, stdin: BinaryIO, keys: SigningKeys) -> dict[str, int]:
    """Read reports and append what they prove; how many were read, and what they were.

    A report with a token of ours, or sent to a return path of ours, counts; any other is refused, and what is no
    report at all is passed over. A mail of a maildir is marked as seen once it is kept, so the same command goes on.

    Raises:
        BadSetting: no such file, or no signing key.
    """
    if not keys:
        raise BadSetting("no signing key proves a bounce; set HEADRACE_SIGNING_KEY to that of the workers")
    counts = dict.fromkeys(("mails", *_NAMES.values(), "without_effect", "refused", "no_report"), 0)
    partitions = int(await session.ask("partitions", {}))
    for mail in _mails(source, stdin):
        counts["mails"] += 1
        counts[await _take(session, mail.data, keys, partitions)] += 1
        mail.done()
    return counts


async def _take(session: Asked, data: bytes, keys: SigningKeys, partitions: int) -> str:
    """What became of one mail, by its name among the counts."""
    report = _read(data)
    if report is None:
        return "no_report"
    claims = await _claims(session, report, keys)
    if claims is None:
        return "refused"
    if report.kind is None:
        return "without_effect"
    mark = blake2b(f"{claims.dispatch_id}/{report.kind}/{report.address}".encode(), digest_size=12).hexdigest()
    item: dict[str, str] = {
        "type": TYPE,
        "kind": report.kind,
        "token": sign(keys, claims, "bounce"),
        "id": f"report:{mark}",  # the same report read twice counts once
        "address": report.address[:ADDRESS_CHARS_MAX],
        "reason": report.reason,
    }
    key = claims.user.encode()
    output = Output(topics.EVENTS.name, partition_of(key, partitions), key, to_json(item))
    await session.ask("append", {"outputs": to_wire([output])})
    return _NAMES[report.kind]


def _read(data: bytes) -> MailReport | None:
    """The report in a mail. One that breaks its reader is passed over, or every later run would end at it, too."""
    try:
        return read_mail_report(data)
    except Exception as error:  # noqa: BLE001  # anybody may send anything there; its text may quote the mail
        structlog.get_logger("headrace").error("mail_broke_its_reader", error=type(error).__name__)
        return None


async def _claims(session: Asked, report: MailReport, keys: SigningKeys) -> Claims | None:
    """Which of our messages it is about, proven; None for a forged report.

    The return path alone names the dispatch and no more, so that it has to be known still: for 72 hours.
    """
    if report.proof:
        try:
            return verify(keys, report.proof, ("bounce",)).claims
        except BadInput:
            return None
    dispatch_id = read_return_path(keys, report.return_path) if report.return_path else None
    if dispatch_id is None:
        return None
    found: Any = await session.ask("dispatch", {"dispatch_id": dispatch_id})
    return None if found is None else Claims(**found)


def _mails(source: str, stdin: BinaryIO) -> Iterator[Mail]:
    """The mails of a maildir, of an mbox, or the one that is the file."""
    path = Path(source)
    if source == "-":
        yield Mail(_without_from(stdin.read(REPORT_BYTES_MAX)), _nothing)
    elif path.is_dir():
        yield from _of_maildir(path)
    else:
        yield from _of_file(path)


def _of_file(path: Path) -> Iterator[Mail]:
    with path.open("rb") as file:
        data = file.read(REPORT_BYTES_MAX)
    if not data.startswith(_FROM):
        yield Mail(data, _nothing)
        return
    with closing(mailbox.mbox(path, create=False)) as box:
        for key in box.iterkeys():
            with closing(box.get_file(key)) as mail:
                yield Mail(mail.read(REPORT_BYTES_MAX), _nothing)


def _without_from(data: bytes) -> bytes:
    """Without the line that mail systems put before what they pipe."""
    return data.partition(b"\n")[2] if data.startswith(_FROM) else data


def _of_maildir(folder: Path) -> Iterator[Mail]:
    """Its new mails; one that is done goes to `cur`, as seen."""
    new, seen = folder / "new", folder / "cur"
    if not new.is_dir():
        raise BadSetting(f"{folder}: no maildir, it has no folder `new`; name a maildir, a file, or - for stdin")
    for path in sorted(new.iterdir()):
        with path.open("rb") as file:
            data = file.read(REPORT_BYTES_MAX)
        yield Mail(data, lambda path=path: path.rename(seen / f"{path.name}:2,S"))


def _nothing() -> None:
    """A file stays as it is."""
