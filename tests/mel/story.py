"""The story itself: what happens, step by step; what must be found because of it stands in findings.py."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any, Final

from streams.times import DAY_MS, format_time
from tests.mel import people
from tests.mel.people import HOUR_MS, HOURS, MEL
from tests.mel.product import GONE, KEY, LOOK_S, PATIENCE_S, CommandError
from tests.mel.shop_server import html_of
from tests.mel.stage import Row, Stage

WORKSPACE: Final = Path(__file__).resolve().parent / "workspace"
CAMPAIGN: Final = "announcement"
SEGMENT: Final = "likes_similar"
PRODUCT: Final = "blue-rooms-lp"
ANONYMOUS_STORY, KNOWN_STORY = "late-trains", "blue-rooms"
FLUSHED: Final = "headrace.requestImmediateDataFlush()"
DESK: Final = (1280, 740)
REPORT_ROWS: Final = (
    "[...document.querySelectorAll('#variants tr')]"
    ".map((row) => [...row.children].map((cell) => cell.firstChild ? cell.firstChild.textContent : ''))"
)
CHOSEN_FROM_MS: Final = 10 * HOUR_MS
"""When the day that comes begins for the first people on earth: then it is decided who is written to, and when."""

BEST_MINUTE: Final = 15
"""The middle of the half hour within which the people of the story came."""

BEFORE_MS: Final = 2_000
"""The clock jumps to so long before something is due: then nothing but time makes it happen."""


class Story:
    """Mel's, on one stage."""

    def __init__(self, stage: Stage, shots: Path | None = None, seed: int = 1) -> None:
        """Screenshots go to `shots`, if there is such a folder."""
        self.stage, self.product, self.shop, self.mel = stage, stage.product, stage.shop, stage.mel
        self.shots = shots
        self.people = people.everybody(seed)
        self.today_ms = stage.clock.now_ms() // DAY_MS * DAY_MS
        self.device = ""
        copytree(WORKSPACE, stage.folder / "workspace", ignore=ignore_patterns("campaigns"))
        stage.product.settings["WORKSPACE"] = str(stage.folder / "workspace")

    # ---- what happens

    async def move_in(self) -> None:
        """The tables of the old platform, by the commands that an operator uses."""
        folder, now_ms = self.stage.folder, self.stage.clock.now_ms()
        table = people.write_people(folder / "people.csv", self.people)
        await self.product.command("import", str(table))
        likes = people.write_likes(folder / "likes.csv", self.people, now_ms)
        await self.product.command("import", str(likes), "--as", "events")
        sessions = people.write_sessions(folder / "sessions.ndjson", self.people, now_ms)
        await self.product.command("send", str(sessions))

    async def browse(self) -> None:
        """Nobody knows who this is: the SDK gives the device an id of its own."""
        await self.mel.visit(self.shop.url)
        await self.mel.click(f"[data-article={ANONYMOUS_STORY}] .like")
        self.device = await self.mel.page.run("headrace.getDeviceId()")
        await self._sent()
        await self._shot("1-shop-nobody")

    async def log_in(self) -> None:
        """`changeUser`: whatever the device did was Mel."""
        await self.mel.type_into("#name", MEL.external_id)
        await self.mel.click("#login button")
        await self.mel.until("!document.querySelector('#hello').hidden")
        await self._sent()

    async def like(self) -> None:
        """One like as nobody and one as Mel make two; in between she has been away."""
        await self.mel.visit(self.shop.url)
        await self.mel.click(f"[data-article={KNOWN_STORY}] .like")
        await self._sent()
        await self._shot("2-shop-mel")

    async def announce(self) -> None:
        """One more file in the workspace, checked and put into force."""
        template = (WORKSPACE / "campaigns" / f"{CAMPAIGN}.yaml").read_text("utf-8")
        text = template.replace("{day}", _day(self.today_ms + DAY_MS)).replace("{shop}", self.shop.url)
        folder = self.stage.folder / "workspace"
        (folder / "campaigns").mkdir(exist_ok=True)
        (folder / "campaigns" / f"{CAMPAIGN}.yaml").write_text(text, "utf-8")
        await self.product.command("definitions", "check", str(folder))
        await self.product.command("definitions", "apply", str(folder))

    async def choose(self) -> None:
        """Tomorrow begins somewhere on earth: each person's hour is looked up."""
        await self._until_due(self.today_ms + CHOSEN_FROM_MS)

    async def pass_evening(self) -> None:
        """The clock jumps from one best hour to the next, and each time waits until what is due has gone out."""
        for hour in sorted(HOURS):
            due_ms = self.today_ms + DAY_MS + hour * HOUR_MS + BEST_MINUTE * 60_000
            await self._until_due(due_ms)
            await self._all_written(hour)
        await self.product.settle()
        path = self.stage.folder / "mail-to-mel.html"
        path.write_text(html_of(self.shop.mail_to(MEL.email)), "utf-8")

    async def open_mail(self) -> None:
        """A browser shows the mail, with the picture that tells of it."""
        await self.mel.visit(f"{self.shop.url}/mail/{MEL.email}")
        await self._shot("3-mail")

    async def click(self) -> None:
        """The link leads over the door to the shop."""
        await self.mel.click("#look")
        await self.mel.until("location.pathname === '/product' && document.readyState === 'complete'")

    async def wish(self) -> None:
        """The shop knows Mel still."""
        await self.mel.click("#wish")
        await self._sent()
        await self._shot("4-wishlist")

    async def look_back(self) -> None:
        """The team looks at the campaign's page, and at what is known of Mel now."""
        await self.product.settle()
        folder, profile = self.stage.folder, await self.profile()
        (folder / "mel.json").write_text(json.dumps(profile, indent=2, ensure_ascii=False), "utf-8")
        await self.mel.look(*DESK)
        await self.mel.visit(f"{self.product.url}/campaigns/{CAMPAIGN}")
        await self.mel.type_into("#key", KEY)
        await self.mel.click("#ask button")
        await self.mel.until(f"{REPORT_ROWS}.length > 1")
        await self._shot("5-report")
        (folder / "report.html").write_text(await self.mel.page.run("document.documentElement.outerHTML"), "utf-8")

    async def report_rows(self) -> list[list[str]]:
        """The table of variants on the campaign's page, which renews itself; its heads first."""
        found: list[list[str]] = await self.mel.page.run(REPORT_ROWS)
        return found

    # ---- how it happens

    async def profile(self, user: str = MEL.external_id) -> dict[str, Any]:
        """What `app.py user` says; an empty profile where it knows nobody of that id."""
        with suppress(CommandError):
            return dict(await self.product.user(user))
        return {key: {} for key in ("attributes", "events", "sessions", "segments", "campaigns")}

    async def rows(self, kind: str, **fields: str) -> list[Row]:
        """The export's rows of a type that have these values."""
        found = await self.stage.rows(kind)
        return [row for row in found if all(row.get(name) == value for name, value in fields.items())]

    async def _sent(self) -> None:
        """Wait until the door has answered for everything that the page has told."""
        await self.mel.until(FLUSHED)

    async def _shot(self, name: str) -> None:
        if self.shots is not None:
            await self.mel.screenshot(self.shots / f"{name}.png")

    async def _until_due(self, due_ms: int) -> None:
        """Jump to just before a moment, unless it is past, and let it come."""
        clock = self.stage.clock
        if clock.now_ms() < due_ms - BEFORE_MS:
            clock.jump_to(due_ms - BEFORE_MS)
        await asyncio.sleep(max(0, due_ms - clock.now_ms()) / 1000)

    async def _all_written(self, hour: int) -> None:
        """Wait until everyone whose hour has come has been written to, or left out to compare with."""
        wanted = {one.external_id for one in self.people if one.is_written_to and one.usual_hour <= hour}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(*GONE):
                    sent = await self.rows("users.messages.email.Send")
                    control = await self.rows("users.campaigns.EnrollInControl")
                    if wanted <= {row["external_user_id"] for row in (*sent, *control)}:
                        return
                await asyncio.sleep(LOOK_S)


def _day(moment_ms: int) -> str:
    return format_time(moment_ms)[:10]
