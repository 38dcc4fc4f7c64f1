"""The door of CSV files: `POST /users/import`, its state and its refused rows, by the digest of the file."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from agents.durable import HALF, write_durably
from agents.engine.transport import Log
from agents.web.csv_import import Choices, Progress, import_csv
from agents.web.gate import refusal
from agents.web.keys import Keys
from agents.web.uploads import save
from config import metrics
from config.clock import Clock
from streams.csv_table import KINDS, Kind, read_mapping
from streams.errors import BadInput, BadSetting, HeadraceError, OutsideFailing
from streams.events import JSONValue
from streams.records import Output

SCOPE: Final = "users.import"
BYTES_MAX: Final[dict[Kind, int]] = {"attributes": 500_000_000, "events": 50_000_000}
IDLE_S_MAX: Final = 30.0
UPLOADS_MAX: Final = 2
JOBS_MAX: Final = 8
"""One runs, the others wait."""

KEPT_MAX: Final = 100
"""Finished imports that are remembered, the newest."""

ANSWER_S: Final = 1.0
"""So long an answer waits for the end of the import: a short one is answered with what came out."""

RETRY_AFTER_S: Final = "10"
DRY_RUN: Final = "-dry-run"
_ID: Final = re.compile(rf"[0-9a-f]{{24}}({DRY_RUN})?")
_TRUE: Final = {"true": True, "false": False}


class _Wanted(msgspec.Struct, frozen=True):
    """How a file was asked to be read: kept beside it, so that its import goes on after a restart.

    `replaces_ms` is when an import of the same file had begun that was known then, which this one, made `again`,
    replaces: as long as no other is known, this one has yet to begin.
    """

    kind: Kind
    map: list[str]
    again: bool = False
    dry_run: bool = False
    replaces_ms: int | None = None


class _Straight:
    """What an import asks, answered by the log itself."""

    def __init__(self, log: Log, is_full: Callable[[], bool]) -> None:
        self._log = log
        self._is_full = is_full

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        if command == "partitions":
            return self._log.partitions
        if self._is_full():
            raise OutsideFailing("the disk is nearly full; send the same file again later, and it goes on")
        outputs = msgspec.convert(args["outputs"], list[tuple[str, int, bytes | None, bytes]])
        await self._log.append([Output(*row) for row in outputs])
        return len(outputs)


class Imports:
    """Files lie in the data folder until they are imported; rows go into the log one file after the other."""

    def __init__(self, folder: Path, log: Log, clock: Clock, keys: Keys, is_full: Callable[[], bool]) -> None:
        """While `is_full` says so, nothing is taken."""
        self._folder = folder
        self._clock = clock
        self._keys = keys
        self._is_full = is_full
        self._straight = _Straight(log, is_full)
        self._turn = asyncio.Lock()
        self._beginning = asyncio.Lock()
        self._uploading = 0
        self._jobs: dict[str, asyncio.Task[dict[str, Any]]] = {}

    def add_routes(self, app: web.Application) -> None:
        """The paths; imports that a stop has cut off go on when the process serves."""
        app.router.add_post("/users/import", self._post)
        app.router.add_get("/users/import/{id}", self._status)
        app.router.add_get("/users/import/{id}/errors", self._errors)
        app.on_startup.append(self._resume)
        app.on_cleanup.append(self._stop)

    async def _post(self, request: web.Request) -> web.Response:
        refused = refusal(request, self._keys, SCOPE) or self._busy()
        if refused is not None:
            return refused
        try:
            wanted = _wanted(request)
            self._uploading += 1
            try:
                body = request.content.iter_any()
                folder = self._folder / "dry-run" if wanted.dry_run else self._folder
                path = await save(body, folder, BYTES_MAX[wanted.kind], IDLE_S_MAX)
            finally:
                self._uploading -= 1
            return await self._begin(path, wanted)
        except BadInput as error:
            metrics.LIMIT_HITS.labels(f"import_{error.reason}").inc()
            return _said(413 if error.reason == "too_large" else 408, error.detail)
        except BadSetting as error:
            return _said(400, _of_parameters(str(error)))
        except HeadraceError as error:
            return _said(503, str(error), retry=True)

    def _busy(self) -> web.Response | None:
        if self._is_full():
            metrics.LIMIT_HITS.labels("door_disk_low").inc()
            return _said(503, "the disk is nearly full; nothing was taken, send it again later", retry=True)
        if self._uploading >= UPLOADS_MAX or sum(not job.done() for job in self._jobs.values()) >= JOBS_MAX:
            metrics.LIMIT_HITS.labels("imports").inc()
            return _said(429, "Rate Limited", retry=True)
        return None

    async def _begin(self, path: Path, wanted: _Wanted) -> web.Response:
        """Start the import of a file, or join the one under way; answer with its end if that comes soon."""
        import_id = _id_of(path, wanted)
        job = self._jobs.get(import_id)
        if job is None or job.done():
            job = await self._new(path, wanted)
        await asyncio.wait([job], timeout=ANSWER_S)
        if job.done():
            found = job.result()  # raises BadSetting, as the command would
            return _said(200, "success", import_id=import_id, state="done", **found)
        return _said(202, "success", import_id=import_id, state="running")

    async def _new(self, path: Path, wanted: _Wanted) -> asyncio.Task[dict[str, Any]]:
        """A new import of the file, kept for after a restart before anybody is told of it; one for all who ask now."""
        import_id = _id_of(path, wanted)
        ended = self._jobs.get(import_id)
        async with self._beginning:
            job = self._jobs.get(import_id)
            if job is not None and job is not ended:
                return job
            if not wanted.dry_run:
                known = self._progress(import_id)
                wanted = msgspec.structs.replace(wanted, replaces_ms=known.began_ms if known else None)
                await asyncio.to_thread(_note, path, wanted)
            return self._start(path, wanted)

    def _start(self, path: Path, wanted: _Wanted) -> asyncio.Task[dict[str, Any]]:
        for import_id in [name for name, job in self._jobs.items() if job.done()][:-KEPT_MAX]:
            del self._jobs[import_id]
        job = asyncio.create_task(self._run(path, wanted))
        job.add_done_callback(_told)
        self._jobs[_id_of(path, wanted)] = job
        return job

    async def _run(self, path: Path, wanted: _Wanted) -> dict[str, Any]:
        """Import, when it is this one's turn; the file itself is not kept longer than needed."""
        choices = Choices(wanted.kind, read_mapping(wanted.map), wanted.again)
        session = None if wanted.dry_run else self._straight
        async with self._turn:
            try:
                found = await import_csv(session, path, choices, self._clock, lambda rows: None)
            except BadSetting:
                self._forget_file(path)
                raise
            await asyncio.to_thread(self._tidy)
            self._forget_file(path)  # and the job is done, with no moment between in which the file could come again
        errors = f"/users/import/{_id_of(path, wanted)}/errors"
        return {**found, "errors": errors if found["errors"] else None}

    def _forget_file(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        _beside(path, "wanted").unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Forget the oldest finished imports."""
        kept = sorted(self._folder.glob("*.progress.json"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-KEPT_MAX]:
            base = path.name.removesuffix(".progress.json")
            if not (self._folder / base).exists():
                for old in self._folder.glob(f"{base}.*"):
                    old.unlink(missing_ok=True)
        tried = sorted((self._folder / "dry-run").glob("*.errors.csv"), key=lambda path: path.stat().st_mtime)
        for old in tried[:-KEPT_MAX]:
            old.unlink(missing_ok=True)

    async def _resume(self, app: web.Application) -> None:
        for wanted_file in sorted(self._folder.glob("*.wanted.json")):
            path = self._folder / wanted_file.name.removesuffix(".wanted.json")
            if path.exists():
                try:
                    wanted = msgspec.json.decode(wanted_file.read_bytes(), type=_Wanted)
                except (OSError, msgspec.DecodeError) as error:
                    said = {"file": str(wanted_file), "error": str(error), "fix": "send the same CSV file again"}
                    structlog.get_logger("headrace").warning("import does not go on", **said)
                    continue
                known = self._progress(path.stem)
                has_begun = known is not None and known.began_ms != wanted.replaces_ms
                self._start(path, msgspec.structs.replace(wanted, again=wanted.again and not has_begun))
        for half in self._folder.rglob(f"*{HALF}"):
            half.unlink()

    async def _stop(self, app: web.Application) -> None:
        """Cut imports off: they go on, after the last batch that the log has, when the process is back."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _status(self, request: web.Request) -> web.Response:
        refused = refusal(request, self._keys, SCOPE)
        if refused is not None:
            return refused
        import_id = request.match_info["id"]
        job = self._jobs.get(import_id)
        progress = self._progress(import_id)
        if job is None and progress is None:
            return _said(404, "this door knows no such import; doors do not know of each other's")
        fields: dict[str, Any] = {"import_id": import_id, "state": _state(job, progress)}
        if progress is not None:
            names = ("rows", "sent", "unchanged", "refused", "reasons")
            fields |= {name: getattr(progress, name) for name in names}
            fields["errors"] = f"/users/import/{import_id}/errors" if progress.refused else None
        if job is not None and job.done() and not job.cancelled() and job.exception() is not None:
            fields["error"] = _of_parameters(str(job.exception()))
        elif job is not None and job.done() and not job.cancelled():
            fields |= job.result()
        return _said(200, "success", **fields)

    def _progress(self, import_id: str) -> Progress | None:
        if _ID.fullmatch(import_id) is None or import_id.endswith(DRY_RUN):
            return None
        try:
            kept = (self._folder / f"{import_id}.csv.progress.json").read_bytes()
            return msgspec.json.decode(kept, type=Progress)
        except (OSError, msgspec.DecodeError):
            return None

    async def _errors(self, request: web.Request) -> web.StreamResponse:
        """The refused rows as CSV: row, reason, column, detail."""
        refused = refusal(request, self._keys, SCOPE)
        if refused is not None:
            return refused
        import_id = request.match_info["id"]
        digest = import_id.removesuffix(DRY_RUN)
        name = f"{digest}.csv.errors.csv" if digest == import_id else f"dry-run/{digest}.csv.dry-run.errors.csv"
        if _ID.fullmatch(import_id) is None or not (self._folder / name).is_file():
            return _said(404, "no refused rows of such an import here")
        headers = {
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{import_id}.errors.csv"',
            "X-Content-Type-Options": "nosniff",
        }
        return web.FileResponse(self._folder / name, headers=headers)


def _id_of(path: Path, wanted: _Wanted) -> str:
    return f"{path.stem}{DRY_RUN}" if wanted.dry_run else path.stem


def _note(path: Path, wanted: _Wanted) -> None:
    """Keep for a restart what was asked of a file. Raises OutsideFailing, and a file that nobody knows goes."""
    beside = _beside(path, "wanted")
    try:
        write_durably(beside, msgspec.json.encode(wanted))
    except OSError as error:
        if not beside.exists():
            path.unlink(missing_ok=True)
        raise OutsideFailing(f"the file cannot be kept: {error.strerror}; send it again later") from error


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}.json")


def _wanted(request: web.Request) -> _Wanted:
    """What the query asks for. Raises BadSetting naming the parameter."""
    query = request.query
    unknown = sorted(set(query) - {"as", "map", "dry_run", "again"})
    if unknown:
        raise BadSetting(f"{unknown[0][:40]}: no such parameter; there are as, map, dry_run and again")
    if request.content_type.startswith("multipart/"):
        raise BadSetting("Content-Type: send the file itself as the body, not a form")
    kind = query.get("as", KINDS[0])
    for known in KINDS:
        if known == kind:
            mapping = query.getall("map", [])
            read_mapping(mapping)
            return _Wanted(known, mapping, _flag(query, "again"), _flag(query, "dry_run"))
    raise BadSetting(f"as={kind[:40]!r}: rows are {' or '.join(KINDS)}")


def _flag(query: Any, name: str) -> bool:  # noqa: ANN401  # a multi-dict, whose type is not public
    found = _TRUE.get(query.get(name, "false").lower())
    if found is None:
        raise BadSetting(f"{name}: give true or false")
    return found


def _of_parameters(text: str) -> str:
    """A command's words in those of the query; paths of this machine say nothing to a caller."""
    text = re.sub(r"\S*/([0-9a-f]{24})\.csv", r"\1", text)
    return text.replace("--again", "again=true").replace("--map ", "map=")


def _state(job: "asyncio.Task[dict[str, Any]] | None", progress: Progress | None) -> str:
    if job is not None and not job.done():
        return "running"
    if progress is not None and progress.done:
        return "done"
    if job is not None and (job.cancelled() or job.exception() is not None):
        return "stopped"
    return "done" if job is not None else "stopped"


def _told(job: "asyncio.Task[dict[str, Any]]") -> None:
    """Say in the log that an import ended by an error; without the text, which may quote a cell."""
    if not job.cancelled() and (error := job.exception()) is not None:
        structlog.get_logger("headrace").warning("import stopped", error=type(error).__name__)
        if not isinstance(error, HeadraceError):
            metrics.LIMIT_HITS.labels("import_failed").inc()


def _said(status: int, message: str, *, retry: bool = False, **fields: JSONValue) -> web.Response:
    headers = {"Retry-After": RETRY_AFTER_S} if retry else None
    return web.json_response({"message": message, **fields}, status=status, headers=headers)
