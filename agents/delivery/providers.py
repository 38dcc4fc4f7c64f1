"""Where each channel's messages go, by the settings: a provider where one is named, else the demo outbox."""

from channels.addresses import Guard
from channels.calls import Calls
from channels.canary import Canaries
from channels.channel import Provider
from channels.http import HttpClient
from channels.outbox import FILE_NAMES, Outbox
from channels.smtp import Smtp
from config.settings import Settings
from config.smtp_server import read_smtp_server
from streams import canary


def providers_of(settings: Settings) -> dict[str, Provider]:
    """One provider for every channel. Raises OutsideFailing when the outbox cannot be written."""
    providers: dict[str, Provider] = {}
    if settings.smtp:
        providers["email"] = Smtp(read_smtp_server(settings.smtp))
    if settings.sends_webhooks:
        providers["webhook"] = Calls(HttpClient(Guard(settings.allowed_networks)))
    for channel in FILE_NAMES:
        if channel not in providers:
            providers[channel] = Outbox(settings.outbox_folder, channel)
    providers[canary.CHANNEL] = Canaries()
    return providers


def canaries_of(providers: dict[str, Provider]) -> Canaries:
    """Where canaries come out; of providers that somebody else chose, nowhere."""
    found = providers.get(canary.CHANNEL)
    return found if isinstance(found, Canaries) else Canaries()
