"""What is known of workers that a test waited for in vain: what they said and wait for, and how the broker sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import sleep

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.broker.kafka import BrokerUnavailableError, java_command
from tests.processes import children_of

STACKS = Path(__file__).parents[1] / "stacks"
"""On the PYTHONPATH of a process, SIGUSR1 makes it say what its tasks and threads wait for."""

TAIL_CHARS = 5_000
TELL_S = 2.0
ASK_S_MAX = 10.0
TOOL_S_MAX = 40.0


@asynccontextmanager
async def patience(seconds: float, what: str, known: Callable[[], str]) -> AsyncIterator[None]:
    """Let the body take so long; raises AssertionError with what is known when it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        told = await asyncio.to_thread(known)
        raise AssertionError(f"{what}: not within {seconds:.0f} s\n{told}") from None


def known_of(address: str, app: str, logs: Sequence[Path], pids: Iterable[int | None]) -> str:
    """The ends of some logs, what the processes, and their children, say there that they wait for, and the broker."""
    asked = [each for pid in pids if pid is not None for each in (pid, *children_of(pid))]
    before = [log.read_bytes() for log in logs]
    said = [each.decode(errors="replace")[-TAIL_CHARS:] for each in before]
    if not asked:
        return "\n".join(said)
    for pid in asked:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    sleep(TELL_S)
    waits = [log.read_bytes()[len(old) :].decode(errors="replace") for log, old in zip(logs, before, strict=True)]
    return "\n".join([*said, *waits, "---- the broker", broker_says(address, app)])


def broker_says(address: str, app: str) -> str:
    """The group's state and members, what holds back committed readers, and the transactions of the app."""
    try:
        _admin(address).list_topics(timeout=ASK_S_MAX)
    except KafkaException as error:
        return f"(it does not answer: {error})"
    said = []
    for part in (_group, _held_back, _transactions):
        try:
            said.append(part(address, app))
        except (KafkaException, BrokerUnavailableError, subprocess.SubprocessError, TimeoutError) as error:
            said.append(f"({part.__name__.strip('_')} not told: {error!r})")
    return "\n".join(said)


def _group(address: str, app: str) -> str:
    asked = _admin(address).describe_consumer_groups([app], request_timeout=ASK_S_MAX)
    found = asked[app].result(timeout=2 * ASK_S_MAX)
    lines = [f"group {app}: {found.state.name}, {len(found.members)} members"]
    for member in found.members:
        places = sorted((each.topic.removeprefix(f"{app}."), each.partition) for each in _assigned(member))
        held = ", ".join(f"{topic}[{partition}]" for topic, partition in places)
        lines.append(f"  {member.member_id} ({member.group_instance_id or 'not static'}): {held or 'nothing'}")
    return "\n".join(lines)


def _assigned(member: object) -> list[TopicPartition]:
    assignment = getattr(member, "assignment", None)
    return list(assignment.topic_partitions) if assignment else []


def _held_back(address: str, app: str) -> str:
    """Partitions whose last stable offset lies below their end: a transaction is open there."""
    client = _admin(address)
    topics = client.list_topics(timeout=ASK_S_MAX).topics
    places = [
        TopicPartition(name, at)
        for name in sorted(topics)
        if name.startswith(f"{app}.")
        for at in topics[name].partitions
    ]
    stable, ends = (_ends(client, places, level) for level in ("READ_COMMITTED", "READ_UNCOMMITTED"))
    open_ = [
        f"  {name}[{at}]: stable below {low} of {ends[name, at]}"
        for (name, at), low in stable.items()
        if low < ends[name, at]
    ]
    return "\n".join(["partitions with an open transaction:", *(open_ or ["  none"])])


def _ends(client: AdminClient, places: list[TopicPartition], level: str) -> dict[tuple[str, int], int]:
    newest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = client.list_offsets(
        dict.fromkeys(places, newest), isolation_level=IsolationLevel[level], request_timeout=ASK_S_MAX
    )
    return {(tp.topic, tp.partition): found.result(timeout=ASK_S_MAX).offset for tp, found in asked.items()}


def _transactions(address: str, app: str) -> str:
    """By Kafka's own tool; those of the app that are not complete."""
    command = java_command("org.apache.kafka.tools.TransactionsCommand", "--bootstrap-server", address, "list")
    done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_S_MAX, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(app)]
    open_ = [f"  {line}" for line in lines if "Complete" not in line and "Empty" not in line]
    return "\n".join([f"{len(lines)} transactional ids, not complete:", *(open_ or ["  none"]), done.stderr[-500:]])


def _admin(address: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": address, "log_level": 2})
