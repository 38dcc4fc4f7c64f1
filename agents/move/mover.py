"""The move itself: a folder's cargo into the topics of an app, from wherever an earlier attempt stopped."""

import secrets
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from agents.engine.pace import Pace
from agents.engine.transport import Log
from agents.move.cargo import CHANGELOG, Cargo
from agents.move.source import Source
from config.clock import Clock
from config.settings import Settings
from streams import topics
from streams.errors import BadSetting, BadState
from streams.records import Output, Place
from tables.moved import Moved, arriving
from tables.store import Store

APPEND_RECORDS: Final = 500
APPEND_BYTES: Final = 1024 * 1024
ID_BYTES: Final = 16


async def move(settings: Settings, clock: Clock, folder: Path, log: Log | None = None) -> dict[str, Any]:
    """Take a stopped folder of the embedded log to Kafka: state, timers, sends, cursors and ids go on there.

    Whatever stops it, the same call continues it. The folder refuses to run from the moment at which it is
    drained; workers refuse the topics until everything is there.

    Args:
        settings: of the workers that will run; their partition count may be another.
        clock: the folder's time while it is drained.
        folder: the data folder that `run` used.
        log: the target, if it is not the brokers that the settings name.

    Returns:
        {"users": n, "dispatches": n, "records": n, "partitions": [old, new]}.

    Raises:
        BadSetting: not onto Kafka, or the folder is in use or was moved, or the topics are in use.
        BadState: the topics were used while the move stood still.
    """
    if log is None:
        if not settings.on_kafka:
            raise BadSetting("HEADRACE_BROKER=embedded://: name the brokers to move to, as kafka://host:port")
        from agents.engine.kafka.log import KafkaLog  # noqa: PLC0415  # only where it is used

        log = KafkaLog(settings, Pace())
    source = Source(settings.model_copy(update={"data": folder}), clock)
    try:
        await log.start()
        return await _move(source, settings, log)
    finally:
        await log.stop()
        source.close()


async def _move(source: Source, settings: Settings, log: Log) -> dict[str, Any]:
    old, new = source.settings.partitions, settings.partitions
    if settings.clock == "stream" and old != new:
        raise BadSetting(f"HEADRACE_PARTITIONS={new}: under the stream clock a folder keeps its {old} partitions")
    mark = await _begun(source, settings, log)
    with TemporaryDirectory(prefix="headrace-move-") as empty:
        scratch = Store(Path(empty) / "db")
        try:
            cargo = Cargo(source.store, source.log, old, new, scratch)
            hold = _Hold(log, await _ends(log))
            if mark.carried:
                for _ in cargo.records():  # only counted: workers may have written since, and the last of a key counts
                    pass
            else:
                await _carry(cargo, hold, mark)
                mark = msgspec.structs.replace(mark, carried=True)
                await source.note(mark)
            for output in (*cargo.marks(b""), None):
                await hold.put(output)
        finally:
            scratch.close()
    await source.note(msgspec.structs.replace(mark, done=True))
    users = sum(cargo.users.values())
    return {"users": users, "dispatches": cargo.dispatches, "records": hold.appended, "partitions": [old, new]}


async def _carry(cargo: Cargo, hold: "_Hold", mark: Moved) -> None:
    """Everything but the last marks, which let workers begin."""
    for output in (*cargo.marks(mark.move_id.encode()), None):
        await hold.put(output)
    for output in cargo.records():
        await hold.put(output)
    await hold.put(None)


async def _begun(source: Source, settings: Settings, log: Log) -> Moved:
    """The mark of this move: an earlier attempt's, or a new one on a drained folder and empty topics."""
    wanted = (settings.app, settings.partitions)
    mark = source.mark
    if mark is None:
        await _refuse_used(log, settings, "")
        await source.drain()
        mark = Moved(secrets.token_hex(ID_BYTES), *wanted)
        await source.note(mark)
    if mark.done:
        raise BadSetting(f"this folder was moved already, to HEADRACE_APP={mark.app}")
    if (mark.app, mark.partitions) != wanted:
        raise BadSetting(
            f"this folder is on its way to HEADRACE_APP={mark.app} with HEADRACE_PARTITIONS={mark.partitions}; set both"
        )
    await _refuse_used(log, settings, mark.move_id)
    return mark


async def _refuse_used(log: Log, settings: Settings, move_id: str) -> None:
    """Raise BadSetting where the topics hold anything but what this move began with."""
    used = sorted({topic for (topic, _), end in (await _ends(log)).items() if end})
    if not used:
        return
    first = await log.look(CHANGELOG, 0, 0, 1)
    if not (move_id and first and (first[0].key, first[0].value) == (b"m" + arriving(0), move_id.encode())):
        raise BadSetting(
            f"HEADRACE_APP={settings.app}: its topics are in use ({', '.join(used)}); move to another HEADRACE_APP, "
            "or delete them"
        )


async def _ends(log: Log) -> dict[Place, int]:
    names = (*topics.BY_NAME, CHANGELOG)
    return await log.ends([(name, partition) for name in names for partition in range(log.partitions)])


class _Hold:
    """Appends in order. Records of a topic that an earlier attempt has appended are passed over.

    The changelog is written anew each time: there the last of a key counts.
    """

    def __init__(self, log: Log, present: dict[Place, int]) -> None:
        self._log = log
        self._present = present
        self._seen: Counter[Place] = Counter()
        self._waiting: list[Output] = []
        self._bytes = 0
        self.appended = 0

    async def put(self, output: Output | None) -> None:
        """Take one more record; with None, return when everything taken is there."""
        if output is not None and not await self._is_present(output):
            self._waiting.append(output)
            self._bytes += len(output.value)
        is_full = len(self._waiting) >= APPEND_RECORDS or self._bytes >= APPEND_BYTES
        if self._waiting and (is_full or output is None):
            await self._log.append(self._waiting)
            self.appended += len(self._waiting)
            self._waiting, self._bytes = [], 0

    async def _is_present(self, output: Output) -> bool:
        place = (output.topic, output.partition)
        if output.topic == CHANGELOG:
            return False
        offset = self._seen[place]
        self._seen[place] += 1
        present = self._present.get(place, 0)
        if offset == present - 1:
            await self._compare(output, offset)
        return offset < present

    async def _compare(self, output: Output, offset: int) -> None:
        """The last record that is there must be the one that belongs there."""
        found = await self._log.look(output.topic, output.partition, offset, 1)
        if not found or (found[0].offset, found[0].key, found[0].value) != (offset, output.key, output.value):
            raise BadState(
                f"{output.topic}[{output.partition}]: offset {offset} is not what this move appended; the topics were "
                "used before it was finished. Delete them, and move again from a backup of the folder"
            )
