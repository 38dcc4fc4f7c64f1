"""Three brokers, three copies of everything, two of which must be there; and what happens to them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.broker.kafka import Broker
from tests.chaos.fleet.session import Fleet
from tests.ports import free_port

NODES: Final = 3
COPIES: Final = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}
AWAY_S: Final = (2.0, 8.0)
CUT_OFF_S: Final = 10.0
"""More than twice the 4 s after which the controller takes a silent broker for dead."""

TOO_FEW_S: Final = 5.0
IN_SYNC_S_MAX: Final = 90.0
ADMIN_S_MAX: Final = 20.0
IMPORTANT: Final = ("mailbox", "changelog", "currents")


class Node(Broker):
    """One of several: it knows its number, and where the others vote."""

    ready_s_max = 180  # three Java machines start side by side

    def __init__(self, folder: Path, number: int, ports: tuple[int, int], voters: str) -> None:
        """`ports` are the broker's and the controller's."""
        address = f"PLAINTEXT://127.0.0.1:{ports[0]}"
        own = {
            "node.id": str(number),
            "controller.quorum.voters": voters,
            "listeners": f"{address},CONTROLLER://127.0.0.1:{ports[1]}",
            "advertised.listeners": address,
        }
        super().__init__(folder, {**COPIES, **own})
        self.number = number
        self._given = ports

    def _configure(self) -> None:
        super()._configure()
        self._ports = self._given

    def signal(self, number: signal.Signals) -> None:
        """Hit it."""
        assert self.pid is not None
        os.kill(self.pid, number)


class Cluster:
    """The three of them. Nothing runs before `start`."""

    def __init__(self, folder: Path) -> None:
        """Keep each broker's data in a folder of its own."""
        first = free_port(2 * NODES)
        pairs = [(first + 2 * at, first + 2 * at + 1) for at in range(NODES)]
        voters = ",".join(f"{number}@127.0.0.1:{pair[1]}" for number, pair in enumerate(pairs, start=1))
        self.nodes = [Node(folder / f"broker-{at}", at, pair, voters) for at, pair in enumerate(pairs, start=1)]

    @property
    def address(self) -> str:
        """`host:port,…` of all of them."""
        return ",".join(node.address for node in self.nodes)

    async def start(self) -> None:
        """Return when all of them answer: none does before it has found a second."""
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self.nodes))

    def stop(self) -> None:
        """End them all; the data is of no more use."""
        for node in self.nodes:
            if node.pid is not None:
                node.signal(signal.SIGCONT)
                node.kill()

    def _topics(self) -> dict[str, Any]:
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 2})
        return dict(client.list_topics(timeout=ADMIN_S_MAX).topics)

    async def leader_of(self, topic: str, partition: int) -> Node:
        """The broker that leads a partition now."""
        found = await asyncio.to_thread(self._topics)
        leader: int = found[topic].partitions[partition].leader
        return self.nodes[leader - 1]

    async def in_sync(self) -> bool:
        """Wait until every partition has all its copies again; False if it takes too long."""
        deadline = time.monotonic() + IN_SYNC_S_MAX
        while time.monotonic() < deadline:
            try:
                topics = await asyncio.to_thread(self._topics)
            except KafkaException:
                continue
            if all(len(each.isrs) == NODES for topic in topics.values() for each in topic.partitions.values()):
                return True
            await asyncio.sleep(0.2)
        return False

    def require(self, fleet: Fleet, copies: int) -> None:
        """Set how many copies of the app's topics must be there for a write."""
        entry = ConfigEntry("min.insync.replicas", str(copies), incremental_operation=AlterConfigOpType.SET)
        names = [name for name in self._topics() if name.startswith(fleet.app + ".")]
        resources = [ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry]) for name in names]
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 2})
        for done in client.incremental_alter_configs(resources).values():
            done.result(timeout=ADMIN_S_MAX)


@asynccontextmanager
async def cluster_in(folder: Path) -> AsyncIterator[Cluster]:
    """A running cluster; its brokers are gone at the end."""
    cluster = Cluster(folder)
    try:
        await cluster.start()
        yield cluster
    finally:
        await asyncio.to_thread(cluster.stop)


BrokerFault = Callable[[Fleet, Cluster], Awaitable[bool]]


async def _sound(fleet: Fleet, cluster: Cluster) -> bool:
    """Whether all copies are there again, and the workers go on."""
    if not await cluster.in_sync():
        fleet.faults.append("the brokers did not come back in sync: the harness cannot go on")
        return False
    return await fleet.whole()


async def leader_killed(fleet: Fleet, cluster: Cluster) -> bool:
    """Kill -9 of the broker that leads a busy partition; it comes back seconds later."""
    topic, partition = fleet.dice.choice(IMPORTANT), fleet.dice.randrange(2)
    node = await cluster.leader_of(f"{fleet.app}.{topic}", partition)
    node.kill()
    await asyncio.sleep(fleet.dice.uniform(*AWAY_S))
    await asyncio.to_thread(node.start)
    return await _sound(fleet, cluster)


async def cut_off(fleet: Fleet, cluster: Cluster) -> bool:
    """One answers nobody for longer than its session, its connections open, and then goes on as if nothing was."""
    node = fleet.dice.choice(cluster.nodes)
    node.signal(signal.SIGSTOP)
    await asyncio.sleep(CUT_OFF_S)
    node.signal(signal.SIGCONT)
    return await _sound(fleet, cluster)


async def restarted_in_turn(fleet: Fleet, cluster: Cluster) -> bool:
    """All are restarted in good order, one after the other, as for an upgrade."""
    for node in cluster.nodes:
        await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.start)
        if not await cluster.in_sync():
            fleet.faults.append("the brokers did not come back in sync: the harness cannot go on")
            return False
    return await _sound(fleet, cluster)


async def all_killed(fleet: Fleet, cluster: Cluster) -> bool:
    """Kill -9 of all three at the same moment, and back."""
    for node in cluster.nodes:
        node.kill()
    await asyncio.sleep(fleet.dice.uniform(*AWAY_S))
    await cluster.start()
    return await _sound(fleet, cluster)


async def too_few_copies(fleet: Fleet, cluster: Cluster) -> bool:
    """For a while every write is refused, since more copies are asked for than brokers are there."""
    node = fleet.dice.choice(cluster.nodes)
    await asyncio.to_thread(cluster.require, fleet, NODES)
    node.kill()
    await asyncio.sleep(TOO_FEW_S)
    await asyncio.to_thread(cluster.require, fleet, NODES - 1)
    await asyncio.to_thread(node.start)
    return await _sound(fleet, cluster)


BROKER_FAULTS: Final[dict[str, BrokerFault]] = {
    "fault: a partition leader killed -9": leader_killed,
    "fault: one broker cut off": cut_off,
    "fault: all brokers restarted in turn": restarted_in_turn,
    "fault: all brokers killed -9 at once": all_killed,
    "fault: too few copies to write": too_few_copies,
}
