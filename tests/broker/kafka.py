"""One Apache Kafka broker in KRaft mode, on loopback, for as long as a test needs it."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from tests.ports import free_port

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
ADDRESS_VARIABLE = "HEADRACE_TEST_KAFKA"
HEAP_MIB = 512
TOOL_HEAP_MIB = 128
RESOLVE_S_MAX = 300
FORMAT_S_MAX = 60
READY_S_MAX = 60
STOP_S_MAX = 20
TOPIC_S_MAX = 30
START_ATTEMPTS_MAX = 3
LOG_TAIL_CHARS = 2_000

PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    # A killed broker may come back only when its last session is over; the default is 9 s.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
}

LOGGING = """\
status = off
appender.file.type = File
appender.file.name = file
appender.file.fileName = {path}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{{1}} %m%n
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
"""


class BrokerUnavailableError(Exception):
    """No broker can be had on this machine; the message says what is missing."""


class BrokerFailedError(Exception):
    """The broker was started and did not come up; the message ends with the tail of its log."""


class Broker:
    """A single Kafka node that keeps everything it writes in one folder.

    Nothing runs before `start()`. After `stop()` or `kill()` the data and the address stay, and `start()`
    brings the same broker back. A broker that somebody else runs (`Broker.at`) is only ever talked to.
    """

    ready_s_max: float = READY_S_MAX
    program: Sequence[str] = ("kafka.Kafka",)
    """What Java is told to run, options before it included; its argument is the file of properties."""

    def __init__(
        self,
        folder: Path,
        properties: Mapping[str, str] | None = None,
        listeners: Sequence[str] = (),
    ) -> None:
        """Keep data, configuration and logs in `folder`; `properties` override those of server.properties.

        `listeners` are security protocols that it speaks beside PLAINTEXT, each on a port of its own.
        """
        self.folder = folder
        self.log_path = folder / "server.log"
        self._properties = dict(properties or {})
        self._ports = (0, 0)
        self._more = dict.fromkeys(listeners, 0)
        self._process: subprocess.Popen[bytes] | None = None
        self._foreign_address: str | None = None

    @classmethod
    def at(cls, address: str) -> Broker:
        """A broker that is already running at `host:port`; `start` and `stop` leave it alone."""
        broker = cls(Path(os.devnull))
        broker._foreign_address = address
        return broker

    @classmethod
    def from_environment(cls, folder: Path) -> Broker:
        """The broker named by HEADRACE_TEST_KAFKA, else one of our own in `folder`, not started yet."""
        address = os.environ.get(ADDRESS_VARIABLE)
        return cls.at(address) if address else cls(folder)

    @property
    def address(self) -> str:
        """`host:port` for bootstrap; of a broker of ours only after `start()`."""
        return self._foreign_address or f"127.0.0.1:{self._ports[0]}"

    def address_of(self, listener: str) -> str:
        """`host:port` of one of the further listeners."""
        return f"127.0.0.1:{self._more[listener]}"

    @property
    def pid(self) -> int | None:
        """The process id of a running broker of ours, else None."""
        return None if self._process is None else self._process.pid

    def start(self) -> Self:
        """Return when the broker answers.

        Raises BrokerUnavailableError without Java or the jars, BrokerFailedError when it does not come up.
        """
        if self._foreign_address is None and self._process is None:
            jars = _jars()
            for attempt in range(1, START_ATTEMPTS_MAX + 1):
                try:
                    self._start_once(jars)
                    break
                except BrokerFailedError:  # for instance somebody took the free port in between
                    if attempt == START_ATTEMPTS_MAX or self._is_formatted():
                        raise
        return self

    def stop(self) -> None:
        """End the broker in good order; one that does not end within 20 s is killed."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the broker as a power cut would: SIGKILL, no flush, no farewell."""
        if self._process is None:
            raise RuntimeError(f"{self.address} is not a running broker of ours, so it cannot be killed")
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _is_formatted(self) -> bool:
        return (self.folder / "log" / "meta.properties").exists()

    def _start_once(self, jars: Path) -> None:
        if not self._is_formatted():
            self._configure()
            self._format(jars)
        with (self.folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [*self._java(jars, HEAP_MIB), *self.program, str(self.folder / "server.properties")],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
        except BrokerFailedError:
            self.kill()
            raise

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ports = (free_port(), free_port())
        broker, controller = (f"127.0.0.1:{port}" for port in self._ports)
        self._more = {name: free_port() for name in self._more}
        open_ones = ",".join([f"PLAINTEXT://{broker}", *(f"{name}://{self.address_of(name)}" for name in self._more)])
        own = {
            "listeners": f"{open_ones},CONTROLLER://{controller}",
            "advertised.listeners": open_ones,
            "listener.security.protocol.map": ",".join(
                ["PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT", *(f"{name}:{name}" for name in self._more)]
            ),
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.folder / "log"),
        }
        lines = [f"{name}={value}\n" for name, value in {**PROPERTIES, **own, **self._properties}.items()]
        (self.folder / "server.properties").write_text("".join(lines))
        (self.folder / "log4j2.properties").write_text(LOGGING.format(path=self.log_path))

    def _format(self, jars: Path) -> None:
        command = [
            *self._java(jars, 128),
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            "headrace-test-broker1",
        ]
        _run([*command, "--config", str(self.folder / "server.properties")], FORMAT_S_MAX, BrokerFailedError)

    def _java(self, jars: Path, heap_mib: int) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        return ["java", f"-Xmx{heap_mib}m", "-Djava.awt.headless=true", logging, "-cp", f"{jars}/*"]

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.ready_s_max
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BrokerFailedError(f"the broker ended with {self._process.returncode}\n{self._tail()}")
            if _listens(self._ports[0]) and _answers(self.address):
                return
            time.sleep(0.05)
        raise BrokerFailedError(f"the broker did not answer within {self.ready_s_max} s\n{self._tail()}")

    def _tail(self) -> str:
        logs = (path for path in (self.folder / "console.log", self.log_path) if path.exists())
        return "\n".join(path.read_text(errors="replace")[-LOG_TAIL_CHARS:] for path in logs)


def java_command(main: str, *arguments: str) -> list[str]:
    """The command that runs one of Kafka's own tools. Raises BrokerUnavailableError without Java or the jars."""
    return ["java", f"-Xmx{TOOL_HEAP_MIB}m", "-cp", f"{_jars()}/*", main, *arguments]


def create_topics(address: str, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
    """Create every topic named in `partitions`, replication 1, and return when each partition can be written.

    (Right after the creation a partition has a leader that does not know it yet and refuses to serve.)
    """
    client = _client(address)
    wanted = [NewTopic(name, count, 1, config=dict(config or {})) for name, count in partitions.items()]
    for created in client.create_topics(wanted, operation_timeout=TOPIC_S_MAX).values():
        created.result(timeout=TOPIC_S_MAX)
    places = [TopicPartition(name, number) for name, count in partitions.items() for number in range(count)]
    deadline = time.monotonic() + TOPIC_S_MAX
    while not _serves(client, places):
        if time.monotonic() > deadline:
            raise BrokerFailedError(f"{sorted(partitions)} cannot be written {TOPIC_S_MAX} s after creation")
        time.sleep(0.02)


def _client(address: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": address, "log_level": 2})


def _serves(client: AdminClient, places: list[TopicPartition]) -> bool:
    newest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    ends = client.list_offsets(dict.fromkeys(places, newest), request_timeout=TOPIC_S_MAX)
    errors = [end.exception(timeout=TOPIC_S_MAX) for end in ends.values()]
    return not any(errors)


def _jars() -> Path:
    """The folder of Kafka's jars, resolved by Maven the first time; one folder for each state of the pom."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise BrokerUnavailableError(f"{program} is not installed, and {ADDRESS_VARIABLE}=host:port is not set")
    jars = HERE / ".jars" / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if not jars.exists():
        jars.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=jars.parent) as aside:
            fresh = Path(aside) / "jars"
            command = [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(POM),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={fresh}",
            ]
            _run(command, RESOLVE_S_MAX, BrokerUnavailableError)
            _publish(fresh, jars)
    return jars


def _publish(fresh: Path, jars: Path) -> None:
    try:
        fresh.rename(jars)
    except OSError:
        if not jars.exists():  # otherwise another test process was first, with the same jars
            raise


def _run(command: list[str], seconds_max: int, error: type[Exception]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise error(f"{command[0]} did not end within {seconds_max} s") from late
    if done.returncode:
        raise error(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-LOG_TAIL_CHARS:]}")


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _answers(address: str) -> bool:
    try:
        return bool(_client(address).list_topics(timeout=5).brokers)
    except KafkaException:
        return False
