"""`make bench`: the product beside stock Faust, in one run on one machine, as figures and ratios."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from tests.bench import large_state, opponent, providers, report, restoring, segments, stages, subject
from tests.bench.child import run_child
from tests.broker.kafka import Broker, BrokerUnavailableError

PARTS: Final = ("throughput", "stages", "latency", "idle", "restore", "segments", "J3", "providers")
JOBS: Final = ("J1", "J2")
USERS: Final = ("zipf", "uniform")
TRANSPORTS: Final = ("embedded", "kafka")
RATES: Final = (1_000, 5_000)
LATENCY_S: Final = 6
OPPONENT_SHARE: Final = 4
WARM_EVENTS: Final = 120_000
WARM_S: Final = 20
SEGMENTS: Final = (10, 1_000, 10_000)
SLOW_S: Final = 0.02

Results = dict[str, Any]


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--jobs", default=",".join(JOBS), help="J1 counts per user; J2 has 100 segments, 50 campaigns")
    parser.add_argument("--users", default=",".join(USERS), help=f"of {', '.join(USERS)}")
    parser.add_argument("--user-count", type=int, default=5_000)
    parser.add_argument("--warm", type=int, default=15_000, help="events before those that are measured")
    parser.add_argument("--events", type=int, default=120_000, help="events measured; the opponent gets a quarter")
    parser.add_argument("--large-users", type=int, default=240_000, help="users of J3, each with a row of 1.2 kB")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="events per second of the latency part")
    parser.add_argument("--transports", default=",".join(TRANSPORTS), help=f"of {', '.join(TRANSPORTS)}")
    parser.add_argument("--workers", default="1", help="numbers of worker processes on Kafka, such as 1,2")
    parser.add_argument("--restore-records", type=int, default=300_000, help="of 200 bytes; half as many of 1 kB")
    parser.add_argument("--sends", type=int, default=50_000, help="messages of the providers part, for each channel")
    parser.add_argument("--no-opponent", action="store_true", help="do not start a broker and stock Faust")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the results to this file, as JSON")
    return parser.parse_args(argv)


class Run:
    """One run: what is asked, and what is found."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._stack = ExitStack()
        self._broker: Broker | None = None
        self._has_no_broker = False
        self._plan = subject.Plan(
            "drain",
            user_count=arguments.user_count,
            warm=arguments.warm,
            events=arguments.events,
            seed=arguments.seed,
        )
        self.results: Results = {
            "python": platform.python_version(),
            "machine": platform.platform(),
            "arguments": {name: str(value) for name, value in vars(arguments).items()},
        }

    def _cells(self) -> Iterator[dict[str, str]]:
        for job in self._arguments.jobs.split(","):
            for users in self._arguments.users.split(","):
                yield {"job": job, "users": users}

    def _subjects(self) -> Iterator[tuple[str, int]]:
        """Transport and number of workers of each way to run the product."""
        for transport in self._arguments.transports.split(","):
            for workers in map(int, self._arguments.workers.split(",")) if transport == "kafka" else (1,):
                yield transport, workers

    def _subject(self, transport: str, workers: int, plan: subject.Plan) -> Results | None:
        """The product's result, labelled; None on Kafka where no broker can be had."""
        _say(f"{plan.mode} {plan.job} {plan.users}: headrace on {transport}, {workers} worker(s)")
        label: Results = {"side": "headrace", "transport": transport, "workers": workers}
        if transport == "embedded":
            return {**label, **run_child("tests.bench.subject", plan)}
        address = self._broker_address()
        if address is None:
            return None
        pid = (self._broker.pid if self._broker else None) or 0
        plan = msgspec.structs.replace(plan, broker=f"kafka://{address}", broker_pid=pid, workers=workers)
        return {**label, **run_child("tests.bench.on_kafka", plan)}

    def _broker_address(self) -> str | None:
        """The one broker of this run, warmed up when it is first asked for; None where none can be had.

        A Java program that has just started is several times slower than it will be: at a drain, of few large
        requests, and still at many small ones after that, so it meets both.
        """
        if self._broker is None and not self._has_no_broker:
            broker = Broker.from_environment(Path(self._stack.enter_context(TemporaryDirectory(prefix="bench-"))))
            try:
                self._broker = self._stack.enter_context(broker)
            except BrokerUnavailableError as missing:
                _say(f"not on Kafka: {missing}")
                self._has_no_broker = True
                return None
            _say("warming the broker up")
            plan = msgspec.structs.replace(self._plan, broker=f"kafka://{broker.address}", events=WARM_EVENTS)
            run_child("tests.bench.on_kafka", plan)
            rate = max(RATES)
            run_child(
                "tests.bench.on_kafka", msgspec.structs.replace(plan, mode="latency", rate=rate, events=rate * WARM_S)
            )
        return None if self._broker is None else self._broker.address

    def close(self) -> None:
        """Stop the broker."""
        self._stack.close()

    def throughput(self) -> None:
        """Subjects and opponent, job by job, one after the other so that all meet the same machine."""
        found = self.results["throughput"] = []
        for cell in self._cells():
            plan = msgspec.structs.replace(self._plan, **cell)
            theirs = self._opponent(plan)
            if theirs is not None:
                found.append({"side": "stock Faust", "transport": "kafka", "workers": 1, **cell, **theirs})
            for transport, workers in self._subjects():
                ours = self._subject(transport, workers, plan)
                if ours is None:
                    continue
                found.append({**cell, **ours})
                if theirs is not None:
                    alone = self._stages(cell)["alone_us"]
                    place = {**cell, "transport": transport, "workers": workers}
                    self.results.setdefault("ratios", []).append(
                        {**place, **report.ratios(cell["job"], ours, theirs, alone)}
                    )

    def _opponent(self, plan: subject.Plan) -> Results | None:
        if self._arguments.no_opponent:
            return None
        _say(f"throughput {plan.job} {plan.users}: stock Faust")
        share = msgspec.structs.replace(plan, events=plan.events // OPPONENT_SHARE)
        address = self._broker_address()
        if address is None:
            return None
        with TemporaryDirectory(prefix="headrace-bench-") as folder:
            return opponent.measure(share, address, Path(folder))

    def _stages(self, cell: Results) -> Results:
        """The stages of a job, measured once."""
        known: list[Results] = self.results.setdefault("stages", [])
        for each in known:
            if (each["job"], each["users"]) == (cell["job"], cell["users"]):
                return each
        _say(f"stages {cell['job']} {cell['users']}")
        plan = stages.Plan(
            **cell,
            user_count=self._plan.user_count,
            warm=self._plan.warm,
            events=self._plan.events,
            seed=self._plan.seed,
        )
        known.append({**cell, **run_child("tests.bench.stages", plan)})
        return known[-1]

    def stages(self) -> None:
        """Microseconds per stage."""
        for cell in self._cells():
            self._stages(cell)

    def latency(self) -> None:
        """From the scheduled time of an event to its segment change and to its message."""
        found = self.results["latency"] = []
        for rate in map(int, self._arguments.rates.split(",")):
            plan = msgspec.structs.replace(self._plan, mode="latency", rate=rate, events=rate * LATENCY_S)
            ways = [self._subject(transport, workers, plan) for transport, workers in self._subjects()]
            found += [way for way in ways if way is not None]

    def idle(self) -> None:
        """What a node costs that has nothing to do."""
        _say("idle")
        self.results["idle"] = run_child("tests.bench.subject", msgspec.structs.replace(self._plan, mode="idle"))

    def restore(self) -> None:
        """Our restore of a partition beside stock Faust's recovery of a table."""
        _say("restore")
        address = self._broker_address()
        if address is not None:
            self.results["restore"] = restoring.measure(address, self._arguments.restore_records, self._arguments.seed)

    def segments(self) -> None:
        """What an event costs among few and many segments, of which it touches as many."""
        found = self.results["segments"] = []
        for count in SEGMENTS:
            _say(f"segments {count:,}")
            found.append(run_child("tests.bench.segments", segments.Plan(count)))

    def j3(self) -> None:
        """The same events over few users, and over more than the block cache can hold."""
        plan = large_state.Plan(self._arguments.large_users)
        drain = subject.Plan("drain", users="uniform", warm=plan.warm, events=plan.events, seed=plan.seed)
        _say(f"J3: {drain.user_count:,} and {plan.user_count:,} users")
        small = {"users": drain.user_count, **run_child("tests.bench.subject", drain)}
        self.results["J3"] = [small, run_child("tests.bench.large_state", plan)]

    def providers(self) -> None:
        """Messages per second and processor time per message, to minimal local providers."""
        found = self.results["providers"] = []
        sends = self._arguments.sends
        for channel in providers.CHANNELS:
            _say(f"providers: {channel}")
            found.append(run_child("tests.bench.providers", providers.Plan(channel, users=sends)))
        _say("providers: email, untracked")
        found.append(run_child("tests.bench.providers", providers.Plan("email", users=sends, tracked=False)))
        self.results["lanes"] = []
        for channel in providers.CHANNELS:
            _say(f"lanes: {channel}")
            plan = providers.Plan(channel, "lanes", self._arguments.sends, wait_s=SLOW_S)
            self.results["lanes"].append(run_child("tests.bench.providers", plan))


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the parts that are asked for; 2 for a part that does not exist."""
    arguments = _arguments(argv)
    parts = arguments.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        _say(f"--parts {', '.join(unknown)}: no such part; parts are {', '.join(PARTS)}")
        return 2
    began = time.perf_counter()
    run = Run(arguments)
    try:
        for part in PARTS:
            if part in parts:
                getattr(run, part.lower())()
    finally:
        run.close()
    run.results["seconds"] = round(time.perf_counter() - began)
    print(report.readable(run.results))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(run.results, indent=1) + "\n", encoding="utf-8")
        _say(f"results are in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
