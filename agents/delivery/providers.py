"""Where each channel's messages go, by the settings: a provider where one is named, else the demo outbox."""

from collections.abc import Callable

from channels.addresses import Guard
from channels.calls import Calls
from channels.canary import Canaries
from channels.channel import Provider, Request
from channels.http import HttpClient
from channels.outbox import FILE_NAMES, Outbox
from channels.smtp import Smtp
from config.settings import Settings
from config.smtp_server import read_smtp_server
from streams import canary
from streams.engagement import SigningKeys, return_path
from streams.errors import BadSetting


def providers_of(settings: Settings, keys: SigningKeys = ()) -> dict[str, Provider]:
    """One provider for every channel; `keys` sign the addresses that bounces go to.

    Raises:
        OutsideFailing: the outbox cannot be written.
        BadSetting: bounces are to be signed, and there is no key.
    """
    providers: dict[str, Provider] = {}
    if settings.smtp:
        server = read_smtp_server(settings.smtp)
        address = settings.bounce_address
        providers["email"] = Smtp(server, sender=_bounces_to(address, keys)) if address else Smtp(server)
    if settings.sends_webhooks:
        providers["webhook"] = Calls(HttpClient(Guard(settings.allowed_networks)))
    for channel in FILE_NAMES:
        if channel not in providers:
            providers[channel] = Outbox(settings.outbox_folder, channel)
    providers[canary.CHANNEL] = Canaries()
    return providers


def _bounces_to(address: str, keys: SigningKeys) -> Callable[[Request], str]:
    """The envelope's sender of each mail: the address, with a sign behind a plus that names the dispatch."""
    if not keys:
        raise BadSetting(f"HEADRACE_BOUNCE_ADDRESS={address}: set HEADRACE_SIGNING_KEY too, by which bounces are known")
    name, _, domain = address.rpartition("@")
    return lambda request: f"{name}+{return_path(keys, request.dispatch_id)}@{domain}"


def canaries_of(providers: dict[str, Provider]) -> Canaries:
    """Where canaries come out; of providers that somebody else chose, nowhere."""
    found = providers.get(canary.CHANNEL)
    return found if isinstance(found, Canaries) else Canaries()
