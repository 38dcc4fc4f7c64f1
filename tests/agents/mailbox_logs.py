"""Mailbox logs worth folding: every kind of letter, ties, delays, windows, refusals, switches and repeats.

They are made in memory by the driver, whose rows and effects are the reference that every process must give.
"""

import random
from pathlib import Path
from typing import Any

import msgspec

from agents.demo import data_file
from config.workspace import DEMO_FOLDER, read_workspace
from streams import topics
from streams.codec import pack, partition_of, to_json
from streams.definitions import Definitions, SegmentDefinition
from streams.effects import CurrentsRecord, Effect
from streams.ingest import cdnow
from streams.mailbox import OutcomeKind, Step, Switch
from streams.outputs import to_outputs
from streams.records import Output, Record
from tables.log import Log
from tables.store import Store
from tests.driver import Driver

PARTITIONS = 2
SEED = 20_260_131
USERS = [f"u{at}" for at in range(24)]
NAMES = ("like", "view", "buy soon")
KINDS: tuple[OutcomeKind, ...] = ("sent", "aborted", "failed", "held")
STEPS_MS = (0, 0, 1, 400, 1_000, 3_600_000, 86_400_000)
CUSTOMERS = 300

Found = dict[str, Any]


def wide_workspace() -> Found:
    """Segments over every filter with windows of many lengths, and campaigns on every trigger, with ties."""
    files: Found = {}

    def segment(name: str, tree: Found) -> None:
        files[f"segments/{name}.yaml"] = {"name": name, "filter": tree}

    def campaign(name: str, trigger: Found, channel: str = "log", **more: Any) -> None:
        message = {"text": "Hello {{ ${first_name} }} {{ custom_attribute.${plan} }}"}
        if channel == "email":
            message = {"to": "{{ ${email_address} }}", "subject": "Hi", "text": "{{ event_properties.${n} }}"}
        if channel == "webhook":
            message = {"body": "{{ ${user_id} }} {{ event_properties.${n} }}"}
        document = {"name": name, "trigger": trigger, "channel": channel, "message": message}
        files[f"campaigns/{name}.yaml"] = {**document, **more}

    for at, within in enumerate(("1s", "1s", "1h", "1d", "2d", "30d")):
        segment(f"liked_{at}", {"event": {"name": "like", "at_least": 1 + at % 2, "within": within}})
        segment(f"spent_{at}", {"money_spent": {"over": 10 * at, "within": within}})
        campaign(f"on_like_{at}", {"event": {"name": "like"}}, re_eligible_after=within, delay="1d" if at % 2 else "0s")
    segment("bought", {"purchases": {"at_least": 2, "within": "1d"}})
    segment("gold", {"attribute": {"path": "plan", "is": "gold"}})
    segment("both", {"any": [{"segment": "gold"}, {"all": [{"segment": "bought"}, {"not": {"segment": "liked_0"}}]}]})
    campaign("gone", {"segment_left": "liked_3"}, "webhook", re_eligible_after="1h")
    campaign("hello", {"segment_entered": "both"}, "email", re_eligible_after="1s", delay="1s")
    campaign("order", {"purchase": {}}, "email", re_eligible_after="0s", audience={"not": {"segment": "gold"}})
    campaign("plan", {"attribute_changed": "plan"}, "webhook", re_eligible_after="0s", delay="1h")
    campaign("where", {"event": {"name": "view", "where": {"n": {"over": 3}}}}, re_eligible_after="1s")
    return files


def wall_log() -> Driver:
    """Two thousand steps of everything that can happen, at append times that jump from 0 ms to a day."""
    dice = random.Random(SEED)
    driver = Driver(wide_workspace(), partitions=PARTITIONS)
    told = 0
    for number in range(2_000):
        driver.now_ms += dice.choice(STEPS_MS)
        _step(driver, dice, number)
        if number % 400 == 399:
            _switch(driver, number // 400)
        for send in driver.sends[told:]:
            if dice.random() < 0.8:
                driver.outcome(send, dice.choice(KINDS))
            told += 1
    driver.deliver(1, None, Step(len(driver.definitions) - 2, "u0", None))
    driver.advance(40 * 86_400_000)
    return driver


def _step(driver: Driver, dice: random.Random, number: int) -> None:
    """One record for intake, a tick, or letters of a repeated intake."""
    user, kind = dice.choice(USERS), dice.randrange(16)
    head = {"external_id": user}
    if kind < 7:
        value = {"n": dice.randrange(6), "deep": {"a": [1.5, None, "é"]}}
        event = {**head, "type": "event", "name": dice.choice(NAMES), "properties": value}
        driver.send({**event, "id": f"e{number // 200}"} if dice.random() < 0.3 else event)
    elif kind < 10:
        price = dice.choice((0, 9.99, 10, 1e-8))
        body = {**head, "product_id": dice.choice("pq"), "currency": "usd", "price": price}
        driver.send({"purchases": [{**body, "quantity": 1 + dice.randrange(3)}, {**head, "price": "bad"}, body]})
    elif kind < 12:
        fields = {**head, "plan": dice.choice(("gold", "free", None)), "email": f"{user}@example.com"}
        consent = {"email_subscribe": dice.choice(("subscribed", "unsubscribed"))}
        driver.send({"attributes": [fields, {"external_id": dice.choice(USERS), **consent}]})
    elif kind == 12:
        driver.send({**head, "type": dice.choice(("session_start", "session_end")), "session_id": str(number)})
    elif kind == 13:
        driver.send({"type": "attributes", "external_id": "full", **{f"a{number}_{at}": at for at in range(400)}})
    elif kind == 14:
        driver.advance(0)
    else:
        partition = dice.randrange(PARTITIONS)
        first = dice.randrange(len(driver.mailboxes[partition]))
        for record in driver.mailboxes[partition][first : first + 4]:
            driver._append(partition, record.key, record.value)


def _switch(driver: Driver, number: int) -> None:
    """Pause and resume, go over to other definitions, and repeat a switch that is over."""
    newest = driver.definitions[-1]
    if number == 0:
        driver.pause("order", "hello")
    elif number == 1:
        driver.pause()
    elif number == 2:
        driver.switch(msgspec.structs.replace(newest, campaigns=newest.campaigns[1:], segments=newest.segments))
        driver.deliver(0, None, Switch(0))
    elif number == 3:
        _build(driver, newest)
    else:
        driver.pause("*")


def _build(driver: Driver, newest: Definitions) -> None:
    """Change definitions over the users, and scan one partition in two steps, the other not before the end."""
    tree: Found = {"event": {"name": "view", "at_least": 2, "where": {"n": {"over": 2}}, "within": "30d"}}
    other: Found = {"event": {"name": "like", "at_least": 3}}
    changed = [SegmentDefinition("liked_0", other) if one.name == "liked_0" else one for one in newest.segments]
    driver.switch(msgspec.structs.replace(newest, segments=changed, paused=["*"]))
    driver.switch(msgspec.structs.replace(driver.definitions[-1], paused=[]))
    added = [*driver.definitions[-1].segments, SegmentDefinition("viewed", tree)]
    driver.switch(msgspec.structs.replace(driver.definitions[-1], segments=added))
    version = len(driver.definitions) - 1
    driver.deliver(0, None, Step(version, "", "u15"))
    driver.deliver(0, None, Step(version, "u15", None))
    driver.deliver(1, None, Step(version, "", "u0"))


def stream_log() -> Driver:
    """The purchases of some CDNOW customers with events and sessions between them, under the stream clock."""
    dice = random.Random(SEED)
    lines = cdnow.read_lines(data_file().read_text(encoding="ascii"))
    customers = set(list(dict.fromkeys(line.customer for line in lines))[:CUSTOMERS])
    chosen = [line for line in lines if line.customer in customers]
    driver = Driver(read_workspace(DEMO_FOLDER), clock="stream", partitions=PARTITIONS)
    driver.now_ms = 1_764_000_000_000
    told = 0
    for number, entry in enumerate(cdnow.entries(chosen)):
        driver.send(entry.value, entry.key)
        if dice.random() < 0.2:
            time = msgspec.json.decode(entry.value).get("time", "1997-01-01")
            event = {"external_id": entry.key.decode(), "time": time, "name": "like", "id": f"x{number}"}
            driver.send({**event, "type": dice.choice(("event", "session_start"))}, entry.key)
        if dice.random() < 0.3:
            for send in driver.sends[told:]:
                driver.outcome(send, dice.choice(KINDS), send.decided_ms)
                told += 1
    for partition in range(PARTITIONS):
        driver.send({"type": "end", "time": cdnow.last_day(chosen)}, _key_in(partition))
    return driver


def _key_in(partition: int) -> bytes:
    return next(key for at in range(99) if partition_of(key := str(at).encode(), PARTITIONS) == partition)


LOGS = {"wall": wall_log, "stream": stream_log}


def write_log(driver: Driver, folder: Path) -> None:
    """Put the driver's mailboxes and definitions into the store of a fresh data folder, append times kept."""
    store = Store(folder / "db")
    log = Log(store)
    for definitions in driver.definitions:
        _write(store, log, Output(topics.DEFINITIONS.name, 0, None, to_json(definitions)), driver.now_ms)
    for partition, mailbox in enumerate(driver.mailboxes):
        for record in mailbox:
            _write(store, log, Output(topics.MAILBOX.name, partition, record.key, record.value), record.append_ms)
        assert log.end(topics.MAILBOX.name, partition) == len(mailbox) > 1_000
    store.close()


def _write(store: Store, log: Log, output: Output, append_ms: int) -> None:
    batch = store.batch()
    log.stage(batch, [output], append_ms)
    store.write(batch)
    log.publish()


def reference(driver: Driver) -> Found:
    """What folding the log must give, in the form in which `fold_again` tells it."""
    outputs: Found = {}
    for effect in driver.effects:
        partition = partition_of(_user_of(effect).encode(), PARTITIONS)
        for output in to_outputs([effect], partition):
            place = outputs.setdefault(f"{output.topic}/{output.partition}", [])
            place.append([output.key, output.value, [list(header) for header in output.headers]])
    found: Found = {"rows": {}, "due": [], "positions": {}, "outputs": dict(sorted(outputs.items()))}
    for partition, rows in enumerate(driver.rows):
        prefix = partition.to_bytes(2, "big")
        found["rows"] |= {prefix + user.encode(): row for user, row in sorted(rows.stored.items())}
        found["due"] += [prefix + due_ms.to_bytes(8, "big") + user.encode() for due_ms, user in rows.due]
        found["positions"][b"position\0" + prefix] = pack(driver.folds[partition].position)
    return found


def _user_of(effect: Effect) -> str:
    return str(effect.fields["external_user_id"]) if isinstance(effect, CurrentsRecord) else effect.user


def told(store: Store) -> Found:
    """Rows, due entries, positions and outputs as they lie in a store, raw; only append times are left out."""
    log = Log(store)
    outputs: Found = {}
    for topic in sorted(topics.BY_NAME):
        if topic in (topics.MAILBOX.name, topics.DEFINITIONS.name, topics.EVENTS.name):
            continue
        for partition in range(PARTITIONS):
            records: list[Record] = []
            while more := log.read(topic, partition, len(records)):
                records += more
            rows = [[record.key, record.value, [list(header) for header in record.headers]] for record in records]
            if rows:
                outputs[f"{topic}/{partition}"] = rows
    return {
        "rows": dict(store.scan("users", b"", b"\xff")),
        "due": [key for key, _ in store.scan("due", b"", b"\xff")],
        "positions": dict(store.scan("meta", b"position\0", b"position\1")),
        "outputs": outputs,
    }
