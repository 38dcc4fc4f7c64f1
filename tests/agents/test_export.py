"""Every currents record gets into exactly one file, whatever is read, closed, written early or lost in a crash."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import fastavro
import pytest

from agents import export as export_agent
from agents.engine.engine import Engine
from agents.engine.slices import Slice
from agents.export import Export
from channels.sinks.avro_files import AvroFiles
from config.settings import Settings, SettingsError, load_settings
from streams.currents import custom_event, purchases, sessions
from streams.effects import CurrentsRecord
from streams.events import CustomEvent, Purchase, Session
from streams.exports import AGE_MAX_MS, SCHEMAS, decode_row
from streams.mailbox import Cause
from streams.outputs import to_outputs
from streams.records import Output
from tables.cursors import read_cursors
from tables.store import Batch, Store
from tests import export_tables
from tests.agents import nodes
from tests.channels.sinks.files import ids_in, rows_in

PARTITIONS = 2
NOW_MS = 1_760_000_000_000


class ManualClock:
    """A clock that moves only when the test says so."""

    def __init__(self) -> None:
        self.at_ms = NOW_MS

    def now_ms(self) -> int:
        return self.at_ms


class Crash(Exception):
    """The process is gone between a file and its cursor."""


class Bench:
    """One data folder, and a process after the other that exports from it."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.folder = folder
        self.store = Store(folder / "db")
        settings = Settings(data=folder, partitions=PARTITIONS)
        self.engine = Engine(settings, self.clock, self.store, folder / "faust")
        self.engine.slices.paused = False
        self.count = 0
        self.written: Counter[str] = Counter()
        self.crash_in = -1
        commit = self.engine.transport.commit

        async def fragile(partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
            self.crash_in -= not outputs  # cursors, that is, and not what the test appends
            if self.crash_in == 0:
                raise Crash
            await commit(partition, batch, outputs)

        self.engine.transport.commit = fragile  # type: ignore[method-assign]

    async def start(self) -> Export:
        """A new process: nothing is in memory, everything is read from where the cursors say."""
        self.crash_in = -1
        agent = Export(self.engine, AvroFiles(self.folder / "exports", "headrace"))
        for partition in range(PARTITIONS):
            await agent.open(partition)
            self.engine.slices.assign(("currents", partition), agent.position("currents", partition))
        return agent

    async def append(self, partition: int, *records: CurrentsRecord) -> None:
        """Put records into the topic."""
        self.written.update(str(record.fields["id"]) for record in records)
        await self.engine.transport.append(to_outputs(records, partition))

    def event(self, name: str = "view") -> CurrentsRecord:
        """A custom event of its own."""
        self.count += 1
        return custom_event(f"u{self.count}", CustomEvent(name, self.clock.at_ms, {}), Cause("t", 0, self.count, 0))

    def start_of_session(self) -> CurrentsRecord:
        """A session of its own."""
        self.count += 1
        start = Session(started=True, time_ms=self.clock.at_ms)
        return sessions(f"u{self.count}", start, Cause("t", 0, self.count, 0), {}, is_first=False)[0]

    async def read(self, agent: Export, partition: int) -> bool:
        """Let the agent handle one slice; False when there is none."""
        piece = self.engine.slices.take(("currents", partition))
        if piece is not None:
            await agent.handle(piece)
        return piece is not None

    async def read_all(self, agent: Export) -> None:
        """Let the agent read to the end."""
        for partition in range(PARTITIONS):
            while await self.read(agent, partition):
                pass

    @property
    def files(self) -> list[Path]:
        """The finished files."""
        return list(AvroFiles(self.folder / "exports", "headrace").files())

    @property
    def exported(self) -> Counter[str]:
        """How often each id lies in a file."""
        return ids_in(self.folder / "exports")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A data folder of its own."""
    found = Bench(tmp_path)
    yield found
    found.store.close()


@pytest.mark.parametrize("seed", range(12))
async def test_each_record_is_in_exactly_one_file(bench: Bench, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Random appends, reads, early writes, hand-overs and crashes lose nothing and write nothing twice."""
    dice = random.Random(seed)
    monkeypatch.setattr("streams.exports.ROWS_MAX", 7)
    agent = await bench.start()
    for _ in range(60):
        act = dice.choice(["append", "append", "read", "read", "due", "flush", "hand over", "crash"])
        partition = dice.randrange(PARTITIONS)
        bench.clock.at_ms += dice.choice([0, 1, AGE_MAX_MS // 2])
        try:
            if act == "append":
                made = [dice.choice([bench.event, bench.start_of_session])() for _ in range(dice.randint(1, 12))]
                await bench.append(partition, *made)
            elif act == "read":
                await bench.read(agent, partition)
            elif act == "due":
                await agent._write_due(partition)
            elif act == "flush":
                await agent.flush()
            elif act == "hand over":
                await agent.close(partition)
                await agent.open(partition)
                bench.engine.slices.assign(("currents", partition), agent.position("currents", partition))
            else:
                bench.crash_in = dice.randint(1, 3)
        except Crash:
            agent = await bench.start()
    agent = await bench.start()
    await bench.read_all(agent)
    await agent.flush()

    assert bench.exported == bench.written
    assert sum(read_cursors(bench.store, at).rows for at in range(PARTITIONS)) == sum(bench.written.values())
    for partition in range(PARTITIONS):
        assert agent.position("currents", partition) == bench.engine.transport.end("currents", partition)


async def test_a_long_file_taken_over_hides_no_other_type(bench: Bench) -> None:
    """A file that ends behind what was read so far does not move the position past unread records of other types."""
    await bench.append(0, bench.event(), bench.event())
    agent = await bench.start()
    await bench.append(0, bench.start_of_session())
    await bench.append(0, bench.event())
    await bench.read_all(agent)
    bench.crash_in = 1
    with pytest.raises(Crash):
        await agent._write(0, "users.behaviors.CustomEvent")

    agent = await bench.start()
    first = bench.engine.transport.read("currents", 0, 0)[:1]
    await agent.handle(Slice("currents", 0, first, 1))
    await agent.flush()
    agent = await bench.start()
    await bench.read_all(agent)
    await agent.flush()

    assert bench.exported == bench.written


async def test_a_closed_partition_writes_nothing(bench: Bench) -> None:
    """What waits in a partition that goes to another owner is dropped, and the next owner reads it again."""
    agent = await bench.start()
    await bench.append(0, bench.event())
    await bench.append(1, bench.event())
    await bench.read_all(agent)
    await agent.close(0)
    await agent.flush()
    await agent._write_due(0)

    assert len(bench.files) == 1
    assert agent.waiting == agent.waiting_bytes == 0
    await bench.start()
    assert (await bench.start()).position("currents", 0) == 0


async def test_memory_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the largest files to be are written early, until what waits fits again."""
    monkeypatch.setattr(export_agent, "BUFFER_BYTES_MAX", 20_000)
    agent = await bench.start()
    for _ in range(4):
        await bench.append(0, *(bench.event() for _ in range(50)))
        await bench.append(1, bench.start_of_session())
        await bench.read_all(agent)
        assert agent.waiting_bytes <= 20_000
    assert {path.parts[-3] for path in bench.files} == {"event_type=users.behaviors.CustomEvent"}
    await agent.flush()
    assert bench.exported == bench.written


async def test_a_file_waits_five_minutes(bench: Bench) -> None:
    """A file that is not full is written five minutes after the append of its first record."""
    agent = await bench.start()
    await bench.append(0, bench.event())
    await bench.read_all(agent)
    bench.clock.at_ms += AGE_MAX_MS - 1
    await agent._write_due(0)
    assert bench.files == []
    bench.clock.at_ms += 1
    await agent._write_due(0)
    assert len(bench.files) == 1


async def test_who_is_behind_writes_no_crumbs(bench: Bench) -> None:
    """A worker that returns after an hour writes by the time of what it reads, not a small file at every look."""
    for _ in range(3):
        await bench.append(0, *(bench.event("x" * 200) for _ in range(300)))
        bench.clock.at_ms += 1_000
    bench.clock.at_ms += 3_600_000
    agent = await bench.start()
    while await bench.read(agent, 0):
        await agent._write_due(0)

    assert len(bench.files) == 1
    assert bench.exported == bench.written


async def test_files_switched_on_later_begin_with_what_is_left(bench: Bench) -> None:
    """The first files of a folder begin at the oldest record that retention has left."""
    for _ in range(3):
        await bench.append(0, bench.event())
        bench.clock.at_ms += 1_000
    await bench.engine.transport.trim("currents", 0, 2, bench.clock.at_ms)
    agent = await bench.start()
    await bench.read_all(agent)
    await agent.flush()

    assert sum(bench.exported.values()) == 2


async def test_topic_and_files_say_the_same(bench: Bench) -> None:
    """Read with a plain JSON parser, a record of the topic has the fields that its row in a file has, by its id."""
    bought = purchases("ü1", Purchase("p", "EUR", Decimal(3), 2, NOW_MS + 999, {"size": "L"}), Cause("t", 0, 0, 0))
    await bench.append(0, bench.event(), *bought, bench.start_of_session())
    agent = await bench.start()
    await bench.read_all(agent)
    await agent.flush()
    rows = {row["id"]: (path.parts[-3], row) for path in bench.files for row in rows_in(path)}
    records = await bench.engine.transport.look("currents", 0, 0, 100)

    assert len(records) == len(rows) == 4
    for record in records:
        value = json.loads(record.value)
        headers = {name: text.decode() for name, text in record.headers}
        folder, row = rows[headers["id"]]
        assert value.pop("event_type") == headers["event_type"] == folder.removeprefix("event_type=")
        assert value["time"] == NOW_MS // 1000
        assert record.key == value["external_user_id"].encode()
        assert value == {name: field for name, field in row.items() if field is not None}
        assert value == {name: field for name, field in decode_row(record.value).items() if name != "event_type"}


def test_every_schema_is_flat() -> None:
    """A field is a plain value, null, or a list of texts, since connectors map first-level keys to columns."""
    plain = ["string", "int", "float", "boolean", {"type": "array", "items": "string"}]
    for schema in SCHEMAS.values():
        fastavro.parse_schema(schema)
        for field in schema["fields"]:
            kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
            assert kinds[-1] in plain
            assert kinds[:-1] in ([], ["null"])
            assert field["name"] == field["name"].lower()


def test_the_documented_tables_are_those_of_the_schemas() -> None:
    """The field tables of docs/EXPORTS.md are made from the schemas; `python -m tests.export_tables` writes them."""
    text = export_tables.PATH.read_text("utf-8")
    assert export_tables.BEGIN in text
    assert export_tables.with_tables(text) == text


async def test_the_documented_program_checks_the_files(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program in docs/EXPORTS.md accepts what is exported, and refuses a file that is there twice."""
    monkeypatch.setattr("streams.exports.ROWS_MAX", 5)
    agent = await bench.start()
    await bench.append(0, *(bench.event() for _ in range(12)), bench.start_of_session())
    await bench.read_all(agent)
    await agent.flush()
    program = re.findall(r"```python\n(.*?)```", export_tables.PATH.read_text("utf-8"), re.DOTALL)[0]
    exec(program, {"folder": bench.folder / "exports"})  # the document's own words

    path = bench.files[0]
    path.with_name(path.name.replace("+0+", "+1+")).write_bytes(path.read_bytes())
    with pytest.raises(AssertionError, match="twice"):
        exec(program, {"folder": bench.folder / "exports"})


@pytest.mark.parametrize(
    ("value", "folder"),
    [
        ("", "data/exports"),
        ("file:///srv/exports", "/srv/exports"),
        ("topic://", None),
        ("topic://,file:///srv/exports", "/srv/exports"),
    ],
)
def test_destinations(value: str, folder: str | None) -> None:
    """HEADRACE_EXPORTS names the folder of the files, the topic alone, or both."""
    found = load_settings({"HEADRACE_DATA": "data", "HEADRACE_EXPORTS": value}).exports_folder
    assert found == (None if folder is None else Path(folder))


@pytest.mark.parametrize(
    "value", ["/srv/exports", "file://", "file://a,file://b", "topic://x", "s3://bucket", ",", "topic://,"]
)
def test_destinations_that_cannot_be(value: str) -> None:
    """A destination that is not built, is twice or is empty is refused at start, and the error says what to write."""
    with pytest.raises(SettingsError, match=r"HEADRACE_EXPORTS=.*write file://folder"):
        load_settings({"HEADRACE_EXPORTS": value})


async def test_the_topic_alone(tmp_path: Path) -> None:
    """With topic:// the topic holds what happened, no file is written, and no agent lags behind for it."""
    async with nodes.running(tmp_path / "data", exports="topic://") as node:
        await nodes.process(node, nodes.event("u1"))
        await node.export.flush()
        found = [json.loads(record.value) for _, record in await nodes.records(node, "currents")]
        lags = await nodes.ask(node, "lag")

    assert [(value["event_type"], value["external_user_id"]) for value in found] == [
        ("users.behaviors.CustomEvent", "u1")
    ]
    assert not (tmp_path / "data" / "exports").exists()
    assert {row["agent"] for row in lags} == {"intake", "users", "delivery", "reports"}
