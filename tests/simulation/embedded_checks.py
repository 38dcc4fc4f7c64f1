"""What must hold when a run has come to rest, held against the log itself and against models of our own.

The log is what the disk kept. Everything else must follow from it: rows, outputs and positions from a fold
begun anew, deliveries from what the endpoints remember, files from the topic that they export.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import fastavro
import msgspec

from agents.engine.slices import Slice, Slices
from agents.node import Node
from channels.channel import Request
from streams import topics
from streams.codec import pack
from streams.definitions import decode_definitions
from streams.effects import Refused
from streams.fold import Fold
from streams.ids import topic_id
from streams.mailbox import FINAL_KINDS, Consent, Forward, Happening, Identify, MergePart, Outcome, decode_letter
from streams.outputs import to_outputs
from streams.positions import Position
from streams.records import Output, Record
from streams.workspace import compile_workspace
from tables.cursors import read_cursors
from tables.dispatches import FINAL, Dispatch, Dispatches
from tables.partition import UsersView
from tables.positions import read_position
from tests.driver import MemoryRows, fold_record
from tests.oracle.reports import recount, rows_of_files
from tests.report_tables import counted
from tests.simulation.disk import Disk, MemoryStore
from tests.simulation.model import expected
from tests.simulation.workload import APP, CAST_MS, PARTITIONS, Op, partition_of

if TYPE_CHECKING:
    from tests.simulation.run import Verdict
    from tests.simulation.site import Site

Places = dict[tuple[str, int], list[Record]]


def read_log(disk: Disk) -> Places:
    """Every record that was ever appended and not lost, also what retention has dropped since."""
    found: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
    for ops in disk.batches:
        for kind, family, key, value in ops:
            if family == "log" and kind == "put":
                name, _, rest = key.partition(b"\0")
                append_ms, rows, *_ = msgspec.msgpack.decode(value)
                records = found[name.decode(), int.from_bytes(rest[:2], "big")]
                for row_key, row_value, headers in rows:
                    pairs = tuple((each[0], each[1]) for each in headers or ())
                    records.append(Record(len(records), append_ms, row_key, row_value, pairs))
    return dict(found)


class Checks:
    """The laws, some looked at while the run goes on, the rest by `judge` at its end."""

    def __init__(self, site: Site, ops: list[Op]) -> None:
        self._site = site
        self._ops = ops
        self.broken: list[str] = []
        self._bytes: dict[str, bytes] = {}
        self._log: Places = {}
        site.on_attempt, site.on_take, site.on_power = self.attempt, self.watermark, self.power

    def _say(self, text: str) -> None:
        if len(self.broken) < 8:
            self.broken.append(text)

    # ---- while it runs

    def attempt(self, node: Node, request: Request) -> None:
        """Recorded, with these very bytes and for good; allowed by pause and consent as they stand."""
        disk = self._site.disks[0]
        name = request.dispatch_id
        found = [each for at in range(PARTITIONS) for each in Dispatches(node.store, at).open([name])]
        if not found or found[0].state != "attempting":
            self._say(f"{name} is attempted and not recorded as attempting")
            return
        dispatch = found[0]
        if dispatch.request != request.body or self._bytes.setdefault(name, request.body) != request.body:
            self._say(f"{name} is attempted with other bytes than are recorded, or than before")
        at = partition_of(dispatch.user)
        key = b"o" + at.to_bytes(2, "big") + name.encode()
        if disk.written_at("dispatches", key) > disk.synced:
            self._say(f"{name} is attempted before its record is durable")
        attributes = UsersView(node.store).attributes(at, dispatch.user) or {}
        if dispatch.channel == "email" and attributes.get("email_subscribe") == "unsubscribed":
            self._say(f"{name} is attempted though {dispatch.user} has unsubscribed")
        if node.workspaces.latest.is_paused(dispatch.campaign):
            self._say(f"{name} is attempted though {dispatch.campaign} is paused")

    def watermark(self, slices: Slices, piece: Slice) -> None:
        """It is never past what its agent has committed; exports and a loose `forward` keep their own cursor."""
        node = self._site.made.get(0)
        if piece.topic == topics.EVENTS.name and self._site.is_loose:
            return
        if node is None or piece.topic == topics.CURRENTS.name or node.engine.slices is not slices:
            return
        done = slices.watermark((piece.topic, piece.partition))
        kept = node.engine.kept_from(piece.topic, piece.partition)
        if kept is not None and done > kept:
            self._say(f"the watermark of {piece.topic}[{piece.partition}] is {done}, committed is {kept}")

    def power(self, kept: int) -> None:
        """What was acknowledged and not yet synced may be lost with the power."""
        for op in self._ops:
            op.must = op.must and op.acked_at <= kept

    # ---- at the end

    def judge(self, verdict: Verdict) -> None:
        """Everything that must follow from the log."""
        disk = self._site.disks[0]
        self._log = read_log(disk)
        self._store = MemoryStore(disk, None, None)
        self._inputs()
        self._fold()
        self._model()
        outcomes = self._outcomes()
        self._deliveries(outcomes)
        self._exports()
        self._replays()
        self._positions()
        verdict.broken += self.broken
        verdict.facts = {name: len(self._of(name)) for name in ("events", "mailbox", "currents", "dead-letters")}
        verdict.facts |= {"sends": len(self._sends()), "lives": self._site.lives}

    def _of(self, topic: str) -> list[tuple[int, Record]]:
        return [(at, record) for at in range(PARTITIONS) for record in self._log.get((topic, at), [])]

    def _sends(self) -> list[tuple[int, dict[str, Any]]]:
        names = [topic.name for topic in topics.SENDS.values()]
        return [(at, msgspec.json.decode(record.value)) for name in names for at, record in self._of(name)]

    def _letters(self, at: int) -> Iterator[Any]:
        for record in self._log.get(("mailbox", at), []):
            yield decode_letter(record.value)

    def _inputs(self) -> None:
        """Each record that was taken is there; each good object is a letter, each bad one a dead letter, once."""
        items = {op.value: op.items for op in self._ops if op.command == "append"}
        held = {record.value for _, record in self._of("events")}
        for op in self._ops:
            if op.must and op.value not in held:
                self._say(f"a record that was acknowledged is lost: {op.value[:80]!r}")
        source = topic_id(APP, "events")
        want: set[tuple[int, Any]] = set()
        refused: Counter[tuple[str, str, str]] = Counter()
        for at, record in self._of("events"):
            only = dict(record.headers).get("replay_items", b"").decode()
            for item, (kind, user, _) in enumerate(items[record.value]):
                if only and str(item) not in only.split(","):
                    continue
                if kind == "bad":
                    refused[str(at), str(record.offset), str(item)] += 1
                else:
                    want.add((partition_of(user), (source, at, record.offset, item)))
        letters = [(at, each) for at in range(PARTITIONS) for each in self._letters(at)]
        have = {
            (at, msgspec.structs.astuple(each.cause)) for at, each in letters if isinstance(each, (Happening, Identify))
        }
        if want != have:
            self._say(f"letters and objects differ: {sorted(want ^ have)[:3]}")
        dead: Counter[tuple[str, str, str]] = Counter()
        for _, record in self._of("dead-letters"):
            headers = {name: value.decode() for name, value in record.headers}
            dead[headers["partition"], headers["offset"], headers["item"]] += 1
        if dead != refused:
            self._say(f"dead letters are {dead - refused} too many, {refused - dead} too few")

    def _fold(self) -> None:
        """Rows, positions and outputs are those of a fold from the first letter on."""
        versions = {record.offset: decode_definitions(record.value) for _, record in self._of("definitions")}
        compiled = {at: compile_workspace(each, at) for at, each in versions.items()}
        posted: Counter[tuple[int, bytes | None, bytes]] = Counter()
        for at in range(PARTITIONS):
            rows, outputs = MemoryRows(), defaultdict[str, list[Output]](list)
            fold = Fold(rows, Position(version=min(compiled)), "wall", compiled.__getitem__, (at, PARTITIONS))
            for record in self._log.get(("mailbox", at), []):
                fold_record(fold, record)
                effects = [each for each in fold.take_effects() if not isinstance(each, Refused)]
                for output in to_outputs(effects, at, PARTITIONS):
                    outputs[output.topic].append(output)
            posted.update((each.partition, each.key, each.value) for each in outputs["mailbox"])
            if dict(UsersView(self._store).raw(at)) != rows.stored:
                self._say(f"the rows of partition {at} are not those of a fold from scratch")
            began_ms = [record.append_ms for record in self._log.get(("mailbox", at), [])[:1]]
            if began_ms and pack(UsersView(self._store).position(at)) != pack(fold.position):
                self._say(f"partition {at}: {UsersView(self._store).position(at)} where a fold gives {fold.position}")
            for name in (*(topic.name for topic in topics.SENDS.values()), "segment-changes", "currents"):
                said = [(each.key, each.value, each.headers) for each in self._log.get((name, at), [])]
                if said != [(each.key, each.value, each.headers) for each in outputs[name]]:
                    self._say(f"{name}[{at}]: {len(said)} records, a fold gives {len(outputs[name])}, or others")
            now_ms = self._site.loop.time() * 1000
            late = [due for due, _ in rows.due if due < began_ms[0] + now_ms - 3_000]
            if late:
                self._say(f"{len(late)} timers of partition {at} are overdue and have not fired")
        between = (MergePart, Forward, Consent)
        lie = Counter(
            (at, record.key, record.value)
            for at, record in self._of("mailbox")
            if isinstance(decode_letter(record.value), between)
        )
        if lie != posted:
            self._say(f"letters between users: {lie - posted} too many, {posted - lie} missing")

    def _model(self) -> None:
        """Changes of segments and what was decided, by a model that shares no rule with the product."""
        letters = [
            [(record.append_ms, record.key, record.value) for record in self._log.get(("mailbox", at), [])]
            for at in range(PARTITIONS)
        ]
        paused_of = [msgspec.json.decode(record.value)["paused"] for _, record in self._of("definitions")]
        models, owed = expected(letters, paused_of, CAST_MS)
        if owed:
            self._say(f"late events of anonymous users were lost, or came too often: {owed.most_common(2)}")
        for at, model in enumerate(models):
            changes = [msgspec.json.decode(each.value) for each in self._log.get(("segment-changes", at), [])]
            said = Counter((each["segment"], each["external_id"], each["change"], each["time"]) for each in changes)
            if said != model.changes:
                self._say(f"segment changes of {at}: unforeseen {said - model.changes}, missing {model.changes - said}")
            sends = Counter(each["dispatch_id"] for where, each in self._sends() if where == at)
            if sends != model.sends:
                self._say(f"sends of {at}: unforeseen {sends - model.sends}, missing {model.sends - sends}")

    def _outcomes(self) -> dict[str, list[Outcome]]:
        """What the users were told of each dispatch: at most one final outcome, and attempts never fall."""
        told: defaultdict[str, list[Outcome]] = defaultdict(list)
        for at in range(PARTITIONS):
            for letter in self._letters(at):
                if isinstance(letter, Outcome):
                    told[letter.dispatch_id].append(letter)
        for name, outcomes in told.items():
            finals = [each.kind for each in outcomes if each.kind in FINAL_KINDS]
            attempts = [each.attempt for each in outcomes]
            if len(finals) > 1 or attempts != sorted(attempts) or (finals and outcomes[-1].kind not in FINAL_KINDS):
                self._say(f"{name} was told {[(each.attempt, each.kind) for each in outcomes]}")
        return told

    def _deliveries(self, told: dict[str, list[Outcome]]) -> None:
        """Each send has one dispatch that is final or held, and told as it is; the counts add up."""
        table = dict[str, Dispatch]()
        for at in range(PARTITIONS):
            dispatches = Dispatches(self._store, at)
            table |= {each.dispatch_id: each for each in dispatches.all()}
            counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
            for each in dispatches.all():
                counted[each.campaign][each.state] += 1
            if {name: +Counter(by) for name, by in dispatches.counts.items()} != counted:
                self._say(f"the counts of partition {at} do not add up: {dispatches.counts}, are {counted}")
        if set(table) != {each["dispatch_id"] for _, each in self._sends()}:
            self._say(f"{len(self._sends())} sends, {len(table)} dispatches, or others")
        for name, each in table.items():
            last = told[name][-1].kind if name in told else ""
            if each.state not in (*FINAL, "held") or each.state != last:
                self._say(f"dispatch {name} ({each.campaign}) is {each.state}, told was {last!r}")
            if each.channel == "email":
                self._mail(each, was_held=any(outcome.kind == "held" for outcome in told.get(name, ())))
        self._webhooks(table)
        lines = (self._site.folder / "outbox" / "log.jsonl").read_text("utf-8").splitlines()
        said = Counter(msgspec.json.decode(line)["dispatch_id"] for line in lines)
        if said != Counter(name for name, each in table.items() if each.channel == "log" and each.state == "sent"):
            self._say(f"the log channel's file holds {said.most_common(2)} and others than were sent")

    def _mail(self, dispatch: Dispatch, *, was_held: bool) -> None:
        """At most once, unless an operator releases one that was held; sent is taken, taken is sent or held."""
        mails = len(self._site.world.mails.get(dispatch.dispatch_id, ()))
        most = 1 + self._site.released if was_held else 1
        is_sent = dispatch.state == "sent"
        if mails > most or (is_sent and not mails) or (mails and not is_sent and not was_held):
            self._say(f"mail {dispatch.dispatch_id} was taken {mails} times and is {dispatch.state}")

    def _webhooks(self, table: dict[str, Dispatch]) -> None:
        """The same bytes under the same key each time, of a dispatch that is ours; sent is called."""
        calls = self._site.world.calls
        for name, made in calls.items():
            if name not in table or len({call[1:] for call in made}) > 1:
                self._say(f"webhook {name}: {len(made)} calls, not the same, or of no dispatch")
        for name, each in table.items():
            if each.channel == "webhook" and each.state == "sent" and not calls.get(name):
                self._say(f"webhook {name} is sent and nobody was called")

    def _exports(self) -> None:
        """Each record of currents lies in exactly one file, as it was."""
        rows: list[tuple[str, str]] = []
        for path in sorted((self._site.folder / "exports").glob("event_type=*/date=*/*.avro")):
            with path.open("rb") as file:
                kind = path.parts[-3].removeprefix("event_type=")
                found: Any = fastavro.reader(file)
                rows += [(kind, row["id"]) for row in found]
        records = [msgspec.json.decode(record.value) for _, record in self._of("currents")]
        want = Counter((each["event_type"], each["id"]) for each in records)
        if Counter(rows) != want or max(want.values(), default=1) > 1:
            self._say(f"exports: too many {Counter(rows) - want}, missing {want - Counter(rows)}")
        said, counts = counted(self._store, range(PARTITIONS)), recount(rows_of_files(self._site.folder / "exports"))
        if said != counts:
            wrong = [place for place in sorted({*said, *counts}) if said.get(place) != counts.get(place)]
            self._say(f"reports are no recount of the exports: {wrong[:3]}")

    def _replays(self) -> None:
        """A dead letter is put back at most once, and only what has a mark was."""
        marks = sum(1 for _ in self._store.scan("meta", b"replayed\0", b"replayed\1"))
        back = 0
        for _, record in self._of("events"):
            headers = dict(record.headers)
            if "replay_of" in headers:
                back += len(headers["replay_items"].split(b",")) if "replay_items" in headers else 1
        if marks != back:
            self._say(f"{back} dead letters were put back, {marks} are marked so")

    def _positions(self) -> None:
        """Every agent has read its topics to their ends."""
        for at in range(PARTITIONS):
            ends = {name: len(self._log.get((name, at), [])) for name in topics.BY_NAME}
            read = {"events": read_position(self._store, "intake", "events", at)}
            read["mailbox"] = UsersView(self._store).position(at).next_offset
            read["currents"] = read_cursors(self._store, at).next_offset
            for topic in topics.SENDS.values():
                read[topic.name] = read_position(self._store, "delivery", topic.name, at)
            for name, offset in read.items():
                if offset != ends[name]:
                    self._say(f"{name}[{at}] ends at {ends[name]} and is read to {offset}")
