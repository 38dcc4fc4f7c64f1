"""A fleet: several worker processes on Kafka, started, watched and asked as one."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError

from agents.campaigns import Campaigns
from agents.definitions import Workspaces
from agents.engine.kafka.log import KafkaLog
from agents.engine.kafka.reports_topic import TopicReports
from agents.engine.pace import Pace
from agents.folder import DataFolder
from agents.retention import follow_brokers
from agents.status.about import about
from agents.status.board import Board
from agents.status.crew import Crew
from agents.status.families import exposition
from agents.web.campaigns import merge_campaigns, sending_of
from agents.web.campaigns_page import campaign_routes
from agents.web.control import ControlClient, ControlServer
from agents.web.doors import doors
from agents.web.key_ring import KEY_COMMANDS, KeyRing, ask_ring
from agents.web.keys import Keys
from agents.web.preview_page import PreviewPage
from agents.web.server import HttpServer
from agents.web.status import StatusPage
from config import metrics
from config.clock import SystemClock
from config.settings import EXPORT_TOPIC, PREFIX, Settings
from streams.errors import BadSetting, HeadraceError, OutsideFailing
from streams.events import JSONValue

START_S_MAX: Final = 180.0
STOP_S_MAX: Final = 12.0
LOOK_S: Final = 0.1
RESTART_S_MIN: Final = 0.5
RESTART_S_MAX: Final = 15.0
EXIT_BAD_SETTING: Final = 2
PATIENCE: Final = (HeadraceError, OSError, KafkaError)

Answer = dict[str, Any]


class _Worker:
    """One worker process and its folder."""

    def __init__(self, settings: Settings, number: int, command: Sequence[str]) -> None:
        self.number = number
        self.folder = settings.data / f"worker-{number}"
        self.process: asyncio.subprocess.Process | None = None
        self.ended = ""
        self._command = command
        self._environment = _environment(settings, number, self.folder)

    async def start(self) -> None:
        """Start the process; it ends by itself when this one does, for then its standard input closes."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdin=asyncio.subprocess.PIPE, stdout=sys.stderr
        )

    async def ask(self, command: str, args: Answer) -> JSONValue:
        """One command's answer. Raises ConnectionError or FileNotFoundError while it does not listen."""
        client = await ControlClient.connect(self.folder)
        try:
            return await client.ask(command, args)
        finally:
            client.close()


class Fleet:
    """`HEADRACE_WORKERS` workers below one data folder. A worker that ends is started again."""

    def __init__(self, settings: Settings, command: Sequence[str], *, door: bool) -> None:
        """Lock the folder; `command` starts one worker by the environment it gets; `door`: take events over HTTP."""
        self.settings = settings
        self.pace = Pace()
        self.folder = DataFolder(settings.data)
        self.log = KafkaLog(settings, self.pace)
        self.failure: asyncio.Future[BaseException] | None = None
        if door and settings.http and not (settings.tracking_url or settings.smtp):
            settings = settings.model_copy(update={"tracking_url": f"http://{settings.http}"})  # this door's own
        self._workers = [_Worker(settings, number, command) for number in range(settings.workers)]
        self._watchers: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger("headrace")
        clock = SystemClock()
        self.key_ring = KeyRing(self.log, clock)
        keys = Keys(settings.data, settings.api_key, self.key_ring) if settings.http and door else None
        self._crew = Crew(self._workers, self.log, clock)
        self.board = Board(self._crew, clock, about(settings, "fleet"))
        taker = doors(settings, self.log, clock, keys) if keys else None
        self._workspaces = Workspaces(self.log)
        self._campaigns = Campaigns(self._workspaces, TopicReports(settings), clock.now_ms)
        more = campaign_routes(self._campaigns, keys, clock)
        more += [PreviewPage(self, keys)] if keys else []
        page = StatusPage(self.board, keys, self)
        self._server = HttpServer(self._has_failed, self._metrics, taker, page, more=more)
        self._control = ControlServer({name: self._command(name) for name in (*MERGES, *KEY_COMMANDS, *OWN)})

    async def start(self) -> None:
        """Apply the workspace, start every worker, and wait until all partitions are open.

        Raises:
            BadSetting: a worker refused its settings; it has said why.
            OutsideFailing: not all of them were ready in time.
        """
        self.failure = asyncio.get_running_loop().create_future()
        await self.log.start()
        await self._workspaces.load()
        await self.key_ring.load()
        if self.settings.workspace is not None:
            await self._workspaces.adopt(self.settings.workspace, insist=True)
        await self._server.start(self.settings.http)
        self._watchers = [asyncio.create_task(self.board.run()), asyncio.create_task(self._workspaces.follow())]
        self._watchers.append(asyncio.create_task(self.key_ring.follow(PATIENCE)))
        self._watchers.append(asyncio.create_task(follow_brokers(self.settings, self._crew.keep)))
        self._watchers += [asyncio.create_task(self._watch(worker)) for worker in self._workers]
        try:
            async with asyncio.timeout(START_S_MAX):
                while not await self._all_open():
                    await self.behind()
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise OutsideFailing(f"the workers were not ready after {START_S_MAX:.0f} s; see their logs") from None
        await self._control.start(self.settings.data)
        self._server.ready = True

    async def _all_open(self) -> bool:
        try:
            found = await self.ask("progress", {})
        except (OSError, HeadraceError):
            return False
        return bool(found["partitions"] == list(range(self.settings.partitions)))

    async def _metrics(self) -> bytes:
        """Every worker's metrics with its number as a label, and the fleet's own."""
        return await asyncio.to_thread(exposition, self._crew.families)

    def _has_failed(self) -> bool:
        return self.failure is not None and self.failure.done()

    async def behind(self) -> int:
        """Nothing: Kafka's disks bound what a producer may be ahead. Raises what made the fleet give up."""
        if self.failure is not None and self.failure.done():
            raise self.failure.result()
        return 0

    async def _watch(self, worker: _Worker) -> None:
        """Keep one worker running, with growing pauses between starts that fail early."""
        pause_s = RESTART_S_MIN
        while True:
            began = asyncio.get_running_loop().time()
            await worker.start()
            assert worker.process is not None
            code = await worker.process.wait()
            worker.ended = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            if code == EXIT_BAD_SETTING:
                self._fail(BadSetting(f"worker {worker.number} refused to start; its message stands above"))
                return
            self._log.warning("worker ended", worker=worker.number, code=code)
            lived_s = asyncio.get_running_loop().time() - began
            pause_s = RESTART_S_MIN if lived_s > RESTART_S_MAX else min(2 * pause_s, RESTART_S_MAX)
            await asyncio.sleep(pause_s)
            metrics.WORKER_RESTARTS.labels(str(worker.number)).inc()

    def _fail(self, error: BaseException) -> None:
        if self.failure is not None and not self.failure.done():
            self.failure.set_result(error)

    async def ask(self, command: str, args: Answer) -> JSONValue:
        """A command's answer, merged from the workers that it concerns."""
        if command == "status":
            await self.board.look()
            return {**self.board.summary(), "sending": await sending_of(self)}
        if command == "report":
            return await self._campaigns.answer(**args)
        if command in KEY_COMMANDS:
            return await ask_ring(self.key_ring, command, args)
        merge = MERGES[command]
        if merge is _any_one:
            answer = await self._ask_any(command, args)
            if command in CHANGING:
                with suppress(OSError, HeadraceError):  # one that is starting reads it then, the others follow anyway
                    await self.ask("reload", {})
            return answer
        answers, errors = [], []
        for worker in self._workers:
            try:
                answers.append(await worker.ask(command, args))
            except HeadraceError as error:
                errors.append(error)
        if errors and (merge is not _first or all(answer is None for answer in answers)):
            raise errors[0]
        return merge(answers)

    async def _ask_any(self, command: str, args: Answer) -> JSONValue:
        for worker in self._workers:
            with suppress(OSError):
                return await worker.ask(command, args)
        raise OutsideFailing("no worker answers; see their logs")

    def _command(self, name: str) -> JSONValue:
        async def run(args: Answer) -> JSONValue:
            try:
                return await self.ask(name, args)
            except OSError as error:
                raise OutsideFailing(f"a worker does not answer ({error}); it may be starting") from None

        return run

    async def quiesce(self) -> None:
        """Wait until every record has been processed: twice the same, since workers write to one another."""
        last: JSONValue = None
        while True:
            await self.behind()
            try:
                found = await self.ask("progress", {})
            except (OSError, HeadraceError):
                found = None  # a worker is starting again
            is_still = bool(found and found["idle"] and not found["behind"])
            is_whole = bool(found and found["partitions"] == list(range(self.settings.partitions)))
            if is_still and is_whole and found == last:
                return
            last = found
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """Stop every worker in good order; one that takes too long is killed."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self._control.stop(self.settings.data)
        await self._server.stop()
        await self._campaigns.stop()
        await asyncio.gather(*(_end(worker.process) for worker in self._workers if worker.process is not None))
        await self.log.stop()
        self.folder.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _environment(settings: Settings, number: int, folder: Path) -> dict[str, str]:
    """A worker's settings: the fleet's, but for what each process has of its own."""
    host, _, port = settings.http.rpartition(":")
    exports = settings.exports_folder
    own = {
        "DATA": str(folder),
        "WORKERS": "1",
        "MEMBER": f"{settings.member or settings.app}-{number}",
        "HTTP": f"{host}:{int(port) + 1 + number}" if settings.http else "",
        "EXPORTS": f"file://{exports.absolute()}" if exports else EXPORT_TOPIC,
        "OUTBOX": str(settings.outbox_folder.absolute()),
        "WORKSPACE": str(settings.workspace.absolute()) if settings.workspace else "",
        "CLOCK": settings.clock,
        "TRACKING_URL": settings.tracking_url or "",
    }
    return {**os.environ, **{PREFIX + name: value for name, value in own.items()}}


def _first(answers: list[Any]) -> JSONValue:
    """The answer of the worker that holds what was asked for; the others say nothing."""
    return next((answer for answer in answers if answer is not None), None)


def _any_one(answers: list[Any]) -> JSONValue:
    return answers[0]


def _sum(answers: list[Any]) -> JSONValue:
    """Numbers added, decimals in strings too; dicts by key; lists one behind the other; flags: all of them."""
    one = answers[0]
    if isinstance(one, dict):
        names = sorted({name for answer in answers for name in answer})
        return {name: _sum([answer[name] for answer in answers if name in answer]) for name in names}
    if isinstance(one, list):
        return sorted((row for answer in answers for row in answer), key=_order)
    if isinstance(one, bool):
        return all(answers)
    if isinstance(one, str):
        return str(sum(map(Decimal, answers)))
    return sum(answers)


def _order(row: JSONValue) -> JSONValue:
    """Numbers by size; rows of a table as the first worker would have given them, by partition."""
    return row if isinstance(row, int) else row.get("partition", 0)


OWN: Final = ("status", "report")
"""What the fleet answers itself."""

CHANGING: Final = ("apply", "pause", "cancel")
MERGES: Final = {
    "user": _first,
    "explain": _first,
    "segments": _sum,
    "sends": _sum,
    "totals": _sum,
    "dispatch": _first,
    "dispatches": _sum,
    "dead_letters": _sum,
    "replay": _first,
    "lag": _sum,
    "scans": _sum,
    "campaigns": merge_campaigns,
    "progress": _sum,
    "flush": _sum,
    "reload": _sum,
    "release": _sum,
    "discard": _sum,
    "preview": _first,
    "tail": _any_one,
    "append": _any_one,
    "apply": _any_one,
    "pause": _any_one,
    "cancel": _any_one,
    "partitions": _any_one,
}
