"""What a partition counts of events and of what they have led to."""

from collections.abc import Iterable
from decimal import Decimal

from streams.effects import CurrentsRecord, Effect, Post, SegmentChange
from streams.events import Attributes, CustomEvent, Engagement, Event, Purchase, Unblock
from streams.positions import Totals
from streams.sends import Send


def count_event(totals: Totals, event: Event) -> None:
    """Add an event that was applied."""
    if isinstance(event, CustomEvent):
        totals.custom_events += 1
    elif isinstance(event, Purchase):
        totals.purchases += 1
        amount = totals.revenue.get(event.currency, Decimal(0)) + event.price * event.quantity
        totals.revenue[event.currency] = amount
    elif isinstance(event, (Attributes, Unblock)):
        totals.attributes += 1
    elif isinstance(event, Engagement):
        totals.engagements += 1
    else:
        totals.sessions += 1


def count_effects(totals: Totals, effects: Iterable[Effect]) -> None:
    """Add what users entered and left, and what was sent to them."""
    for effect in effects:
        if isinstance(effect, (CurrentsRecord, Post)):
            continue
        if isinstance(effect, SegmentChange):
            crossed = totals.entered if effect.entered else totals.left
            crossed[effect.segment] = crossed.get(effect.segment, 0) + 1
        elif isinstance(effect, Send):
            totals.sends[effect.campaign] = totals.sends.get(effect.campaign, 0) + 1
