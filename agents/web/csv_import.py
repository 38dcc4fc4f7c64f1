"""Import of a CSV file of users or events: row by row into the events topic, resumable, errors in a file beside it."""

import asyncio
import csv
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import msgspec

from agents.web.control import to_wire
from agents.web.replay import Asked
from config import metrics
from config.clock import Clock
from streams import topics
from streams.codec import partition_of
from streams.csv_table import SAMPLE_ROWS, Kind, Table, plan_table, row_record
from streams.errors import BadInput, BadSetting
from streams.ingest.raw_record import RECORD_BYTES_MAX
from streams.records import Output

BATCH_ROWS: Final = 500
BATCH_BYTES_MAX: Final = 1024 * 1024
CELL_CHARS_MAX: Final = 1024 * 1024
ROW_CHARS_MAX: Final = RECORD_BYTES_MAX
"""A row that is longer, over however many lines, would make a record that is refused."""

SAMPLE_BYTES_MAX: Final = 16 * 1024 * 1024
"""So much of a sample is kept in memory; wide tables have fewer rows in it."""

BLOCK_BYTES: Final = 1024 * 1024
DIGEST_BYTES: Final = 12
DELIMITERS: Final = ",;\t|"
_HEADER_CHARS_MAX: Final = 1024 * 1024
_CELL_BYTES: Final = 64  # what a cell takes beside its text
_ERROR_COLUMNS: Final = ("row", "reason", "column", "detail")

Row = tuple[int, list[str] | BadInput]


class Choices(NamedTuple):
    """How a file is to be read; `mapping` as `read_mapping` gives it."""

    kind: Kind
    mapping: Mapping[str, tuple[str, str]]
    again: bool = False


class Progress(msgspec.Struct):
    """How far an import of a file is: kept beside it after every batch, so that it can go on after a stop.

    `digest` is that of the file, `table` is how it was read, and `began_ms` tells one import of it from another.
    """

    digest: str
    table: str
    began_ms: int
    rows: int = 0
    sent: int = 0
    unchanged: int = 0
    refused: int = 0
    reasons: dict[str, int] = {}
    errors_bytes: int = 0
    done: bool = False


async def import_csv(
    session: Asked | None, path: Path, choices: Choices, clock: Clock, report: Callable[[int], None]
) -> dict[str, Any]:
    """Send every row that can be used as a record, in order; memory does not grow with the file.

    Stopped at any moment, even by a crash, the same call goes on after the last batch that the log has; rows sent
    again are recognised by their ids. Refused rows are named in `<file>.errors.csv`.

    Args:
        session: whoever answers `partitions` and `append`; None for a dry run, which sends nothing, keeps no
            progress, and writes nothing but the errors.
        path: the file, UTF-8, with a first line of column names; commas, semicolons, tabs or bars between cells.
        choices: what the rows are and what the columns mean; `again` forgets how far an import of this file was.
        clock: for checking rows as intake will.
        report: told the number of rows after every batch.

    Returns:
        Counts of rows, those sent, unchanged (all cells blank) and refused by reason, the columns as understood, and
        the errors file, or nothing for none.

    Raises:
        BadSetting: the file or its first line cannot be used; or, without `again`, the file was imported before, or
            its import was begun with other columns.
    """
    try:
        digest = await asyncio.to_thread(_digest, path)
        table = await asyncio.to_thread(_plan, path, choices)
        work = _Import(session, path, digest, table, clock)
        return await work.run(report, again=choices.again)
    except OSError as error:
        raise BadSetting(f"{error.filename or path}: {error.strerror}") from error


def _digest(path: Path) -> str:
    digest = blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _plan(path: Path, choices: Choices) -> Table:
    with _open(path) as file:
        rows = _rows(file)
        _, header = next(rows, (1, []))
        if isinstance(header, BadInput):
            raise BadSetting(f"{path}: the first line, with the names of the columns: {header.detail}")
        if not header:
            raise BadSetting(f"{path}: no first line with the names of the columns")
        sample = _sample(rows, len(header))
    return plan_table(choices.kind, header, sample, choices.mapping)


def _sample(rows: Iterator[Row], columns: int) -> list[list[str]]:
    """The first rows, of those that have so many columns, as far as they fit into memory."""
    sample: list[list[str]] = []
    size = 0
    for _, cells in islice(rows, SAMPLE_ROWS):
        if isinstance(cells, BadInput) or len(cells) != columns:
            continue
        size += sum(map(len, cells)) + columns * _CELL_BYTES
        if sample and size > SAMPLE_BYTES_MAX:
            break
        sample.append(cells)
    return sample


def _open(path: Path) -> TextIO:
    """Bytes that are no UTF-8 become lone surrogates, by which their row is refused and no other."""
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


class _Lines:
    """The lines of a file for `csv.reader`, which asks for as many as a row has; no more of a row than may be.

    What is beyond is passed over to the end of that line, unread by `csv.reader`, and raises BadInput instead.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._left = ROW_CHARS_MAX
        self._is_split = False

    def begin_row(self) -> None:
        """The next line is the first of a row."""
        self._left = ROW_CHARS_MAX

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._left + 1)
        if self._is_split and line == "\n":
            line = self._file.readline(self._left + 1)
        self._is_split = False
        if not line:
            raise StopIteration
        if len(line) > self._left:
            self._pass(line)
            detail = f"more than {ROW_CHARS_MAX:,} characters; split it, or look for a quote that is not closed"
            raise BadInput("too_large", "", detail)
        self._left -= len(line)
        return line

    def _pass(self, line: str) -> None:
        while line and line[-1] not in "\r\n":
            line = self._file.readline(BLOCK_BYTES)
        self._is_split = line.endswith("\r")  # the "\n" that belongs to it comes by itself


def _rows(file: TextIO) -> Iterator[Row]:
    """Every row with its number, the first line being 1; or why it is none, and on with the next."""
    first = file.readline(_HEADER_CHARS_MAX)
    file.seek(0)
    delimiter = max(DELIMITERS, key=first.count)
    csv.field_size_limit(CELL_CHARS_MAX)
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    while True:
        number += 1
        lines.begin_row()
        try:
            cells = next(reader, None)
        except BadInput as error:
            yield number, error
            continue
        except csv.Error as error:
            yield number, BadInput("bad_row", "", f"{error}; look for a quote that is not closed")
            continue
        if cells is None:
            return
        if cells or number == 1:
            yield number, cells


class _Import:
    """One file on its way."""

    def __init__(self, session: Asked | None, path: Path, digest: str, table: Table, clock: Clock) -> None:
        self._session = session
        self._path = path
        self._digest = digest
        self._table = table
        self._read_as = msgspec.json.encode(table).decode()
        self._clock = clock
        self._kept = path.with_name(f"{path.name}.progress.json")
        trial = "" if session is not None else ".dry-run"  # of an import that goes on later nothing is touched
        self._errors = path.with_name(f"{path.name}{trial}.errors.csv")

    async def run(self, report: Callable[[int], None], *, again: bool) -> dict[str, Any]:
        """See `import_csv`."""
        partitions = int(await self._session.ask("partitions", {})) if self._session is not None else 1
        progress = self._begin() if again or self._session is None else self._resume()
        with _open(self._path) as file, self._open_errors(progress) as errors:
            rows = _rows(file)
            await asyncio.to_thread(_skip, rows, progress.rows + 1)  # and the first line
            self._keep(progress, errors)  # rows that are sent are this import's, also when a stop comes right behind
            while batch := await asyncio.to_thread(self._next, rows, progress, errors, partitions):
                outputs, last = batch
                if outputs and self._session is not None:
                    await self._session.ask("append", {"outputs": to_wire(outputs)})
                progress.rows = last
                self._keep(progress, errors)
                report(progress.rows)
            progress.done = True
            self._keep(progress, errors)
        if not progress.refused:
            self._errors.unlink(missing_ok=True)
        return self._answer(progress)

    def _begin(self) -> Progress:
        return Progress(self._digest, self._read_as, self._clock.now_ms())

    def _resume(self) -> Progress:
        try:
            found = msgspec.json.decode(self._kept.read_bytes(), type=Progress)
        except (FileNotFoundError, msgspec.DecodeError):
            return self._begin()
        if found.digest != self._digest:
            return self._begin()
        if found.done:
            raise BadSetting(f"{self._path} was imported already ({found.rows:,} rows); --again imports it once more")
        if found.table != self._read_as:
            raise BadSetting(
                f"{self._path}: its import was begun with other columns and came to row {found.rows + 1:,}; "
                "name them as before, or begin anew with --again"
            )
        return found

    def _open_errors(self, progress: Progress) -> TextIO:
        """The errors file, cut to what the progress knows of; written for its owner alone."""
        self._errors.touch(mode=0o600)
        file = self._errors.open("r+", encoding="utf-8", newline="")
        file.truncate(progress.errors_bytes)
        file.seek(progress.errors_bytes)
        if not progress.errors_bytes:
            csv.writer(file).writerow(_ERROR_COLUMNS)
        return file

    def _next(
        self, rows: Iterator[Row], progress: Progress, errors: TextIO, partitions: int
    ) -> tuple[list[Output], int] | None:
        """The records of the next rows, and the number of the last row read; None at the end of the file."""
        outputs: list[Output] = []
        size, last, now_ms = 0, 0, self._clock.now_ms()
        place = f"{progress.digest}:{progress.began_ms}"
        for number, cells in islice(rows, BATCH_ROWS):
            last = number - 1
            try:
                if isinstance(cells, BadInput):
                    _hit(cells)
                    raise cells
                made = row_record(self._table, f"{place}:{last}", cells, now_ms)
            except BadInput as error:
                progress.refused += 1
                progress.reasons[error.reason] = progress.reasons.get(error.reason, 0) + 1
                csv.writer(errors).writerow((number, error.reason, _harmless(error.field), _harmless(error.detail)))
                continue
            if made is None:
                progress.unchanged += 1
                continue
            progress.sent += 1
            key = made[0].encode()
            outputs.append(Output(topics.EVENTS.name, partition_of(key, partitions), key, made[1]))
            size += len(made[1])
            if size >= BATCH_BYTES_MAX:
                break
        return (outputs, last) if last else None

    def _keep(self, progress: Progress, errors: TextIO) -> None:
        errors.flush()
        progress.errors_bytes = errors.tell()
        if self._session is not None:
            new = self._kept.with_name(f"{self._kept.name}.new")
            new.write_bytes(msgspec.json.encode(progress))
            new.replace(self._kept)

    def _answer(self, progress: Progress) -> dict[str, Any]:
        return {
            "rows": progress.sent + progress.unchanged + progress.refused,
            "sent": 0 if self._session is None else progress.sent,
            "usable": progress.sent,
            "unchanged": progress.unchanged,
            "refused": progress.refused,
            "reasons": progress.reasons,
            "columns": [column._asdict() for column in self._table.columns],
            "errors": str(self._errors) if progress.refused else None,
        }


def summary(answer: dict[str, Any]) -> str:
    """What an import did, or would do, for people."""
    columns = (
        f"  {column['name']} → {column['field']} ({column['type']})"
        if column["field"]
        else f"  {column['name']}: left out"
        for column in answer["columns"]
    )
    done = f"{answer['sent']:,} sent" if answer["sent"] == answer["usable"] else f"{answer['usable']:,} would be sent"
    lines = ["columns:", *columns, f"{answer['rows']:,} rows: {done}, {answer['unchanged']:,} blank"]
    if answer["refused"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(answer["reasons"].items()))
        lines.append(f"{answer['refused']:,} refused ({reasons}); each is named in {answer['errors']}")
    return "\n".join(lines)


def _skip(rows: Iterator[Row], until: int) -> None:
    """Read on behind the row of that number, the first line being 1."""
    for number, _ in rows:
        if number >= until:
            return


def _hit(refused: BadInput) -> None:
    if refused.reason == "too_large":
        metrics.LIMIT_HITS.labels("import_row_chars").inc()


def _harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula, and that is UTF-8."""
    text = text.encode("utf-8", "replace").decode()
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
