"""Attribution: which open windows an event converts."""

from collections.abc import Sequence
from decimal import Decimal

from streams import currents
from streams.effects import CurrentsRecord
from streams.events import Engagement, Event, Properties, Purchase
from streams.profiles.row import OpenWindow, User
from streams.workspace import Workspace


def convert(
    user: User,
    user_key: str,
    workspace: Workspace,
    signals: Sequence[str],
    event: Event,
    properties: Properties,
    now_ms: int,
) -> list[CurrentsRecord]:
    """The conversions of an event, in order of campaign and index; windows that are done or over are closed.

    A window is [entry, entry + within), by the event's own time and by `now_ms`: what comes when it is over does
    not count. Each conversion of an entry counts once. A purchase's amount is counted once per campaign. An open or
    click is of one message: it converts the entry that this was decided at, and no other campaign's.
    """
    found: list[CurrentsRecord] = []
    paid: set[str] = set()
    _forget(user, workspace, now_ms)
    pairs = {(name, each.index): each for signal in signals for name, each in workspace.conversions.get(signal, ())}
    for (name, index), conversion in sorted(pairs.items()):
        window = user.windows.get(name)
        if window is None or window.done & 1 << index:
            continue
        if isinstance(event, Engagement) and not _is_of(event, name, window):
            continue
        if conversion.matches is not None and not conversion.matches(properties):
            continue
        if not window.at_ms <= event.time_ms <= max(event.time_ms, now_ms) < window.at_ms + conversion.within_ms:
            continue
        window.done |= 1 << index
        amount: tuple[Decimal, str] | None = None
        if isinstance(event, Purchase) and name not in paid:
            paid.add(name)
            amount = (event.price * event.quantity, event.currency)
        found.append(currents.conversion(user_key, user.incarnation, name, window, conversion, event.time_ms, amount))
    if found:
        _forget(user, workspace, now_ms)
    return found


def _is_of(event: Engagement, campaign: str, window: OpenWindow) -> bool:
    """Whether the message is that of the window's entry; told by its time, which a merge of users leaves as it is."""
    return event.claims.campaign == campaign and event.claims.decided_ms == window.at_ms


def _forget(user: User, workspace: Workspace, now_ms: int) -> None:
    """Close windows in which nothing can happen any more."""
    closed = []
    for name, window in user.windows.items():
        campaign = workspace.campaigns.get(name)
        conversions = () if campaign is None else campaign.conversions
        if not any(
            now_ms < window.at_ms + each.within_ms and not window.done & 1 << each.index for each in conversions
        ):
            closed.append(name)
    for name in closed:
        del user.windows[name]
