"""The fan-outs of a partition: which comes next, which are open, and whom they have still to decide."""

from collections.abc import Callable
from typing import Final

from streams.campaigns.schedule import Occurrence, Plan
from streams.campaigns.trigger import Campaign
from streams.fanouts import FANOUTS_MAX, FanOut, FanOutState, Planned, free_slots, is_chosen, use_slots
from streams.positions import Position
from streams.profiles.row import Merged, User
from streams.workspace import Workspace

NEVER_MS: Final = 1 << 62
_UNKNOWN_MS: Final = -1


class Fanning:
    """Keeps what of a partition's position is about scheduled campaigns. A fold has one."""

    def __init__(
        self,
        position: Position,
        workspace_of: Callable[[int], Workspace],
        *,
        passes_over: bool,
        place: tuple[int, int],
    ) -> None:
        """Continue at `position`.

        Args:
            position: of the partition.
            workspace_of: the compiled workspace of a version.
            passes_over: an occurrence is missed where the next has come round, too, before anything arrived.
            place: the partition and how many there are.
        """
        self._position = position
        self._workspace_of = workspace_of
        self._passes_over = passes_over
        self._place = place
        self._coming: dict[str, Occurrence] = {}
        self.next_ms = _UNKNOWN_MS
        if position.next_offset:
            self.plan(position.clock_ms)

    def plan(self, since_ms: int) -> None:
        """Look when each campaign of the workspace in force comes round next; new plans count from `since_ms`."""
        position = self._position
        workspace = self._workspace_of(position.version)
        self._coming = {}
        for name in [name for name in position.plans if name not in workspace.campaigns]:
            del position.plans[name]
        for name, campaign in workspace.scheduled.items():
            plan = plan_of(campaign)
            planned = position.plans.get(name)
            if planned is None or planned.digest != plan.digest:
                last = planned.last if planned is not None else None
                planned = position.plans[name] = Planned(plan.digest, since_ms, last=last)
            occurrence = plan.next_after(planned.since_ms, planned.local_ms)
            if occurrence is not None:
                self._coming[name] = occurrence
        self._look()

    @property
    def coming_ms(self) -> int | None:
        """When the next campaign comes round; None where nobody knows of one."""
        return self.next_ms if _UNKNOWN_MS < self.next_ms < NEVER_MS else None

    def _look(self) -> None:
        self.next_ms = min([NEVER_MS, *(each.at_ms for each in self._coming.values())])

    def switch(self) -> None:
        """The position has gone over to another version: end what it has no more, or has cancelled."""
        position = self._position
        workspace = self._workspace_of(position.version)
        for fanout in list(position.fanouts):
            campaign = workspace.campaigns.get(fanout.campaign)
            over = workspace.cancelled.get(fanout.campaign, ())
            if campaign is None or campaign.plan is None or plan_of(self.campaign_of(fanout)).digest in over:
                self.end(fanout, "cancelled")
        self.plan(position.clock_ms)

    # ---- opening

    def occur(self, until_ms: int) -> None:
        """Let the occurrence that is due begin: a fan-out opens, unless it is paused, missed or one too many."""
        if self.next_ms == _UNKNOWN_MS:
            self.plan(until_ms)
            return
        position = self._position
        name = min(name for name, each in self._coming.items() if each.at_ms == self.next_ms)
        workspace, occurrence = self._workspace_of(position.version), self._coming.pop(name)
        position.clock_ms = max(position.clock_ms, occurrence.at_ms)
        planned = position.plans[name]
        planned.since_ms, planned.local_ms = max(planned.since_ms, occurrence.at_ms), occurrence.local_ms
        coming = plan_of(workspace.scheduled[name]).next_after(planned.since_ms, planned.local_ms)
        if coming is not None:
            self._coming[name] = coming
        is_late = self._passes_over and coming is not None and coming.at_ms <= until_ms
        if workspace.is_paused(name) or is_late:
            planned.missed += 1
        elif len(position.fanouts) >= FANOUTS_MAX:
            planned.missed += 1
            position.totals.missed += 1
        else:
            self._open(name, occurrence, planned)
        self._look()

    def _open(self, name: str, occurrence: Occurrence, planned: Planned) -> None:
        position = self._position
        planned.opened += 1
        position.fanned += 1
        fanout = FanOut(position.fanned, name, position.version, occurrence, position.totals.users)
        position.fanouts.append(fanout)
        if not fanout.users:
            self.end(fanout, "done")

    def end(self, fanout: FanOut, state: FanOutState) -> None:
        """Close a fan-out; what of it is left is decided no more."""
        position = self._position
        fanout.state, fanout.ended_ms = state, position.clock_ms
        position.fanouts.remove(fanout)
        if fanout.campaign in position.plans:
            position.plans[fanout.campaign].last = fanout

    # ---- deciding

    def campaign_of(self, fanout: FanOut) -> Campaign:
        """The campaign as it was when the fan-out opened."""
        return self._workspace_of(fanout.version).campaigns[fanout.campaign]

    def pending(self, user: User, user_key: str) -> list[FanOut]:
        """The open fan-outs that have not decided the row, oldest first."""
        return [each for each in self._position.fanouts if each.number > user.fanned and user_key > each.cursor]

    def choose(self, user: User, fanout: FanOut) -> bool:
        """Decide the row, which is as it was when the fan-out began; True where that is noted in it."""
        if not self.holds(user, fanout, self.campaign_of(fanout), self.before(fanout)):
            return False
        user.chosen.append(fanout.number)
        return True

    def holds(self, user: User, fanout: FanOut, campaign: Campaign, before: list[FanOut]) -> bool:
        """Whether the user is to get the message, by the row as it was when the fan-out began.

        `campaign` is as it was then; `before` are the open fan-outs of the same campaign that began before.
        """
        if isinstance(user.links, Merged):  # an anonymous user who is somebody by now
            return False
        cancelled = self._workspace_of(fanout.version).cancelled.get(campaign.name, ())
        return is_chosen(user, fanout, campaign, before, cancelled)

    def before(self, fanout: FanOut) -> list[FanOut]:
        """Open ones of the same campaign that began before."""
        name, number = fanout.campaign, fanout.number
        return [each for each in self._position.fanouts if each.number < number and each.campaign == name]

    def touch(self, user: User, user_key: str, stepped: FanOut | None = None) -> None:
        """Something is about to change the row: decide it first for every open fan-out but the one that steps now."""
        position = self._position
        if user.chosen:  # of those that have ended since, nothing is left to be done
            opened = {each.number for each in position.fanouts}
            over = 0 if stepped is None else stepped.number
            user.chosen = [number for number in user.chosen if number in opened and number != over]
        for fanout in self.pending(user, user_key):
            if fanout is not stepped:
                self.choose(user, fanout)
        user.fanned = position.fanned

    @property
    def is_sending(self) -> bool:
        """Whether a fan-out is open that is not paused."""
        workspace = self._workspace_of(self._position.version)
        return any(not workspace.is_paused(each.campaign) for each in self._position.fanouts)

    def ready(self, number: int) -> FanOut | None:
        """The open fan-out of a number; None while it is paused, or an earlier one of its campaign is open."""
        for fanout in self._position.fanouts:
            if fanout.number == number:
                workspace = self._workspace_of(self._position.version)
                return None if workspace.is_paused(fanout.campaign) or self.before(fanout) else fanout
        return None

    def slots(self, fanout: FanOut, now_ms: int) -> range:
        """How many users the fan-out may let in now, as slots of its campaign's rate."""
        return free_slots(fanout, self._plan_now(fanout), now_ms, self._place)

    def use(self, fanout: FanOut, slots: range, count: int) -> None:
        """So many users were let in by the free slots."""
        use_slots(fanout, self._plan_now(fanout), slots, count)

    def _plan_now(self, fanout: FanOut) -> Plan:
        return plan_of(self._workspace_of(self._position.version).campaigns[fanout.campaign])


def plan_of(campaign: Campaign) -> Plan:
    """The plan of a campaign that has one."""
    assert campaign.plan is not None
    return campaign.plan
