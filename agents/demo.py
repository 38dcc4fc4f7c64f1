"""The demo: eighteen months of real purchases, replayed under the stream clock."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Protocol

from agents.engine.pace import Pace
from agents.engine.transport import Log
from config.settings import EXPORT_TOPIC, Settings
from streams import topics
from streams.codec import partition_of, to_json
from streams.errors import BadSetting
from streams.ingest import cdnow
from streams.records import Output

BATCH_RECORDS: Final = 500
AHEAD_RECORDS_MAX: Final = 20_000
PROGRESS_S: Final = 0.2
_LINE: Final = "line"

Ask = Callable[[str, dict[str, Any]], Awaitable[Any]]
Report = Callable[[int, int, float], None]


def data_file() -> Path:
    """The CDNOW file in the installed package `lifetimes`, which is read, not imported. Raises BadSetting."""
    spec = find_spec("lifetimes")
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = Path(folders[0]) / "datasets" / "CDNOW_master.txt" if folders else Path()
    if not path.is_file():
        raise BadSetting("the package lifetimes, which ships the CDNOW data, is not installed; run `make demo`")
    return path


class Pipeline(Protocol):
    """What a replay needs: a log to append to, and something that says how far the agents are."""

    @property
    def pace(self) -> Pace:
        """The pace of the loop that the replay runs on."""

    async def behind(self) -> int:
        """Records that the agents have not finished; raises what made them stop."""

    async def quiesce(self) -> None:
        """Wait until every record has been processed."""


class Replay:
    """The lines to send, in order; each goes to the partition of its user, with its number as a header."""

    def __init__(self, partitions: int) -> None:
        """Read and lay out the data; takes about a second, so make it before a loop runs."""
        lines = cdnow.read_lines(data_file().read_text(encoding="ascii"))
        self._partitions = partitions
        self._entries = list(cdnow.entries(lines))
        self._end = to_json({"type": "end", "time": cdnow.last_day(lines)})
        self.total = len(self._entries) + self._partitions
        self.sent = 0
        self.seconds = 0.0

    async def run(self, log: Log, pipeline: Pipeline, report: Report) -> None:
        """Send what the events topic does not hold yet, never far ahead of the agents; then wait for them."""
        began = perf_counter()
        done = [await self._last_line(log, partition) for partition in range(self._partitions)]
        outputs: list[Output] = []
        targets: dict[bytes, int] = {}
        pace = pipeline.pace
        for number, entry in enumerate(self._entries):
            target = targets.get(entry.key)
            if target is None:
                target = targets[entry.key] = partition_of(entry.key, self._partitions)
            self.sent += 1
            await pace.breathe()
            if number <= done[target]:
                continue
            outputs.append(self._output(target, entry.key, entry.value, number))
            if len(outputs) >= BATCH_RECORDS:
                await _append(log, pipeline, outputs)
                outputs = []
                report(self.sent, self.total, perf_counter() - began)
        for partition in range(self._partitions):
            number = len(self._entries) + partition
            self.sent += 1
            if number > done[partition]:
                outputs.append(self._output(partition, None, self._end, number))
        await _append(log, pipeline, outputs)
        waiting = asyncio.create_task(pipeline.quiesce())
        while not waiting.done():
            report(self.sent, self.total, perf_counter() - began)
            await asyncio.wait([waiting], timeout=PROGRESS_S)
        await waiting
        self.seconds = perf_counter() - began

    def _output(self, partition: int, key: bytes | None, value: bytes, number: int) -> Output:
        return Output(topics.EVENTS.name, partition, key, value, ((_LINE, str(number).encode()),))

    @staticmethod
    async def _last_line(log: Log, partition: int) -> int:
        """The number of the last line that the events partition holds, -1 for none."""
        place = (topics.EVENTS.name, partition)
        end = (await log.ends([place]))[place]
        if end == 0:
            return -1
        record = (await log.look(*place, end - 1, 1))[-1]
        number = dict(record.headers).get(_LINE)
        if number is None:
            raise BadSetting(
                "the events topic holds what no demo sent; use a new HEADRACE_DATA, and on Kafka a new HEADRACE_APP"
            )
        return int(number)


async def _append(log: Log, pipeline: Pipeline, outputs: list[Output]) -> None:
    """Append, and wait while the agents are far behind."""
    await pipeline.pace.rest()
    await log.append(outputs)
    while await pipeline.behind() > AHEAD_RECORDS_MAX:  # noqa: ASYNC110  # an agent on another machine sets no event
        await asyncio.sleep(0.002)


async def result(ask: Ask, seconds: float) -> dict[str, Any]:
    """The demo's line: what happened since the data folder began, by the answers to an operator's questions."""
    totals, sends = await ask("totals", {}), await ask("sends", {})
    states = {
        state: sum(row.get(state, 0) for row in sends.values()) for state in ("sent", "held", "aborted", "failed")
    }
    return {
        "events": totals["purchases"],
        "users": totals["users"],
        "revenue": float(totals["revenue"].get("USD", "0")),
        "segments": await ask("segments", {}),
        "sends": {campaign: sum(row.values()) for campaign, row in sends.items()},
        "delivered": states["sent"],
        "held": states["held"],
        "aborted": states["aborted"],
        "failed": states["failed"],
        "dead_letters": totals["dead_letters"],
        "export": totals["export"],
        "seconds": round(seconds, 2),
        "events_per_s": round(totals["purchases"] / seconds) if seconds else 0,
    }


def summary(settings: Settings, line: dict[str, Any], first: list[dict[str, Any]]) -> str:
    """What happened, for people: the demo's line, some dispatches, and where things lie."""
    exports = line["export"]
    out = [
        "",
        f"{line['events']:,} purchases of {line['users']:,} users, {line['revenue']:,.2f} USD",
        f"{line['seconds']} s, {line['events_per_s']:,} purchases/s",
        "",
        f"{'segment':<16}{'entered':>10}{'left':>10}{'now':>10}",
        *(
            f"{name:<16}{row['entered']:>10,}{row['left']:>10,}{row['now']:>10,}"
            for name, row in line["segments"].items()
        ),
        "",
        f"{'campaign':<16}{'sends':>10}",
        *(f"{name:<16}{count:>10,}" for name, count in line["sends"].items()),
        "",
        "some dispatches:",
        *(
            f"  {each['decided'][:10]}  {each['campaign']} to user {each['user']}: {each['state']}"
            for each in first[:3]
        ),
        "",
        f"mails      {settings.outbox_folder / 'email.mbox'}",
        f"webhooks   {settings.outbox_folder / 'webhook.jsonl'}",
        f"exports    {settings.exports_folder or EXPORT_TOPIC} ({exports['rows']:,} rows in {exports['files']} files)",
        "",
    ]
    return "\n".join(out)
