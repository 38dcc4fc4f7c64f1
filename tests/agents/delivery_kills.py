"""A worker between a mail server and an HTTP server, killed at random moments, on either transport; what must hold."""

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from agents.web.control import ControlClient
from channels.smtp import IN_FLIGHT_MAX
from streams.errors import OutsideFailing
from tests.channels.mail_server import MailServer, mail_server
from tests.channels.test_http import Endpoint, serving
from tests.processes import children_of

ROOT = Path(__file__).parents[2]
USERS = 600
WORKSPACE = {
    "mail": {
        "name": "mail",
        "trigger": {"event": {"name": "go"}},
        "channel": "email",
        "message": {"to": "{{ ${email_address} }}", "subject": "Hi", "text": "Hello {{ ${user_id} }}"},
    },
    "hook": {
        "name": "hook",
        "trigger": {"event": {"name": "go"}},
        "channel": "webhook",
        "message": {"body": "{{ ${user_id} }}"},
    },
}


class Worker:
    """`app.py run` on a data folder, started and killed as often as wanted."""

    def __init__(self, folder: Path, mail: MailServer, hooks: Endpoint, **more: str) -> None:
        self.data = folder / "data"
        campaigns = folder / "workspace" / "campaigns"
        campaigns.mkdir(parents=True)
        for name, campaign in WORKSPACE.items():
            (campaigns / f"{name}.yaml").write_text(json.dumps(campaign))
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
            "HEADRACE_DATA": str(self.data),
            "HEADRACE_WORKSPACE": str(folder / "workspace"),
            "HEADRACE_HTTP": "",
            "HEADRACE_PARTITIONS": "4",
            "HEADRACE_SMTP": f"smtp://127.0.0.1:{mail.port}",
            "HEADRACE_WEBHOOK_URL": hooks.url + "/hook",
            "HEADRACE_HTTP_ALLOW": "127.0.0.1/32",
            **{f"HEADRACE_{name}": value for name, value in more.items()},
        }
        self.process: asyncio.subprocess.Process | None = None

    async def command(self, *arguments: str, text: str = "") -> str:
        """Run a command of the command line to its end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "app.py", *arguments),
            cwd=ROOT,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate(text.encode())
        assert process.returncode == 0, errors.decode()
        return out.decode()

    async def start(self) -> None:
        with (self.data.parent / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "app.py", "run"), cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )

    async def kill(self, signum: int = signal.SIGKILL) -> None:
        assert self.process is not None
        assert self.process.returncode is None, (self.data.parent / "log").read_text()[-3_000:]
        self.process.send_signal(signum)
        await self.process.wait()

    async def kill_one(self, dice: random.Random) -> None:
        """Kill -9 one of a fleet's workers, which its parent starts again."""
        assert self.process is not None
        while not (found := sorted(children_of(self.process.pid))):  # noqa: ASYNC110 - the kernel signals nobody
            await asyncio.sleep(0.005)
        os.kill(dice.choice(found), signal.SIGKILL)

    async def ask(self, command: str, **arguments: Any) -> Any:  # noqa: ANN401 - as free as the socket
        """A control command's answer, from the running worker."""
        while True:
            assert self.process is not None
            assert self.process.returncode is None, (self.data.parent / "log").read_text()[-3_000:]
            try:
                client = await ControlClient.connect(self.data)
            except (FileNotFoundError, ConnectionError):
                await asyncio.sleep(0.05)
                continue
            try:
                return await client.ask(command, arguments)
            except (ConnectionError, OutsideFailing):  # one of a fleet's workers is starting again
                await asyncio.sleep(0.05)
                continue
            finally:
                client.close()

    async def settled(self) -> dict[str, Counter[str]]:
        """Wait until both campaigns have an end, or a hold, for every user."""
        while True:
            found = {name: Counter(states) for name, states in (await self.ask("sends")).items()}
            ended = {"sent", "held", "aborted", "failed"}
            if all(sum(row[state] for state in ended) == USERS for row in found.values()):
                return found
            await asyncio.sleep(0.1)


def lines() -> str:
    """The events: each user has an address, and goes once."""
    found = []
    for number in range(USERS):
        user = {"external_id": f"u{number}"}
        found.append(json.dumps({**user, "type": "attributes", "email": f"u{number}@example.com"}))
        found.append(json.dumps({**user, "type": "event", "name": "go", "time": "2026-11-24T10:00:00Z"}))
    return "\n".join(found) + "\n"


def by_key(endpoint: Endpoint) -> dict[str, list[tuple[str, str, Any, bytes]]]:
    """What the endpoint was sent, by idempotency key."""
    found: dict[str, list[tuple[str, str, Any, bytes]]] = {}
    for request in endpoint.requests:
        found.setdefault(request[2]["Idempotency-Key"], []).append(request)
    return found


@asynccontextmanager
async def working(folder: Path, **more: str) -> AsyncIterator[tuple[Worker, MailServer, Endpoint]]:
    """A worker that is not started yet, with more settings of its own, and the two servers it sends to."""
    async with mail_server() as mail, serving() as hooks:
        worker = Worker(folder, mail, hooks, **more)
        try:
            yield worker, mail, hooks
        finally:
            if worker.process is not None and worker.process.returncode is None:
                worker.process.kill()
                await worker.process.wait()


async def sent_once(folder: Path, **more: str) -> None:
    """Hold a worker that nobody kills to: every mail once, every call once that is taken the first time."""
    async with working(folder, **more) as (worker, mail, hooks):
        dice = random.Random(3)

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            # The first call of some keys is put off, so those take two.
            seen = len(by_key(hooks)[request.headers["Idempotency-Key"]])
            if seen == 1 and dice.random() < 0.1:
                return web.Response(status=dice.choice([429, 500, 503]), headers={"Retry-After": "1"})
            return web.Response()

        hooks.answer = answer
        await worker.command("send", "-", text=lines())
        await worker.start()
        found = await worker.settled()
        await worker.kill(signal.SIGTERM)

    calls = by_key(hooks)
    assert found["mail"]["sent"] == found["hook"]["sent"] == USERS
    assert sorted(address for _, address, _ in mail.taken) == sorted(
        f"u{number}@example.com" for number in range(USERS)
    )
    assert len(calls) == USERS
    assert {body for each in calls.values() for _, _, _, body in each} == {f"u{n}".encode() for n in range(USERS)}
    assert sum(len(each) > 1 for each in calls.values()) > 20
    for each in calls.values():
        assert len(each) <= 2
        assert all(request == each[0] for request in each)


async def never_twice(folder: Path, seed: int, kills: int = 6, **more: str) -> None:
    """Hold a worker under kill -9 to: no mail twice, each call with the same bytes, and the uncertain is held.

    Of a fleet one worker is killed each time, of anything else the whole process.
    """
    dice = random.Random(seed)
    has_fleet = int(more.get("WORKERS", "1")) > 1
    async with working(folder, **more) as (worker, mail, hooks):

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            await asyncio.sleep(dice.random() * 0.05)
            return web.Response()

        hooks.answer = answer
        mail.answers_after_s = 0.02
        await worker.command("send", "-", text=lines())
        # Aimed by progress, so that most kills hit a busy worker however slow the machine is.
        if has_fleet:
            await worker.start()
        for at in sorted(dice.sample(range(1, USERS), kills)):
            if not has_fleet:
                await worker.start()
            while len(mail.taken) < at and len(by_key(hooks)) < at:  # noqa: ASYNC110 - two servers count
                await asyncio.sleep(0.005)
            await (worker.kill_one(dice) if has_fleet else worker.kill())
        if not has_fleet:
            await worker.start()
        found = await worker.settled()
        dispatches = await worker.ask("dispatches", limit=10 * USERS)
        await worker.kill(signal.SIGTERM)

    taken = Counter(address for _, address, _ in mail.taken)
    states = {each["user"]: each["state"] for each in dispatches if each["campaign"] == "mail"}
    sent = {f"{user}@example.com" for user, state in states.items() if state == "sent"}
    uncertain = {f"{user}@example.com" for user, state in states.items() if state == "held"}
    assert sum(found["mail"].values()) == sum(found["hook"].values()) == USERS
    assert max(taken.values()) == 1
    assert sent <= set(taken) <= sent | uncertain
    assert len(sent) + len(uncertain) == USERS
    assert len(uncertain) == found["mail"]["held"] <= kills * IN_FLIGHT_MAX
    assert uncertain or has_fleet  # one of several workers may have had no mail under way
    calls = by_key(hooks)
    assert found["hook"]["sent"] == len(calls) == USERS
    for each in calls.values():
        assert all(request == each[0] for request in each)
