"""Rendering: a send becomes a dispatch with the very bytes that will be sent, however often."""

from typing import Final

from agents.definitions import Workspaces
from channels.channel import Envelope, Render, Request, Skipped
from channels.registry import CHANNELS
from channels.render.engine import RenderContext, Renderer
from channels.render.errors import MessageAborted, RenderError
from channels.tracking import Links, Tracking
from config import metrics
from streams import canary, ids
from streams.engagement import Claims
from streams.sends import Send
from tables.dispatches import Dispatch

DISPATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one message with its address: it is kept in one record, and a broker takes none above 6 MiB."""

REASON_CHARS_MAX: Final = 200
COMPILED_MAX: Final = 1_024
EMAIL: Final = "email"


class Rendering:
    """Compiled messages of the workspace versions in use."""

    def __init__(self, workspaces: Workspaces, default_url: str, tracking: Tracking | None = None) -> None:
        """`default_url` is where webhooks without a url of their own go; without `tracking` nothing is tracked."""
        self._workspaces = workspaces
        self._default_url = default_url
        self._tracking = tracking
        self._renderer = Renderer()
        self._renders: dict[tuple[int, str, str], Render] = {}

    def dispatch(self, send: Send, refusal: str) -> tuple[Dispatch, str]:
        """The dispatch of a send, not recorded yet, and why it is not to be attempted (nothing if it is)."""
        dispatch = Dispatch(
            *(send.dispatch_id, send.campaign, send.channel, send.user, send.version, send.decided_ms), kind=send.lane
        )
        if refusal or send.channel == canary.CHANNEL:
            return dispatch, refusal
        try:
            request = self._render(send)
        except (Skipped, MessageAborted, RenderError) as error:
            return dispatch, str(error).partition("\n")[0][:REASON_CHARS_MAX] or "aborted"
        size = len(request.body) + len(request.address.encode())
        if size > DISPATCH_BYTES_MAX:
            metrics.LIMIT_HITS.labels("dispatch_bytes").inc()
            return dispatch, f"dispatch_bytes: what was rendered takes {size} bytes, at most {DISPATCH_BYTES_MAX}"
        dispatch.address, dispatch.request, dispatch.host = request.address, request.body, request.host
        return dispatch, ""

    def _render(self, send: Send) -> Request:
        campaign = {
            "name": send.campaign,
            "dispatch_id": send.dispatch_id,
            "api_id": ids.definition_api_id("campaign", send.campaign),
        }
        context = RenderContext(
            profile=send.profile if ids.device_of(send.user) else {**send.profile, "user_id": send.user},
            custom=send.custom,
            event_properties=send.event_properties,
            campaign=campaign,
            now_s=send.decided_ms / 1000,
        )
        envelope = Envelope(send.dispatch_id, send.campaign, send.decided_ms, self._default_url, self._links(send))
        return self._compiled(send)(envelope, context)

    def _links(self, send: Send) -> Links | None:
        if self._tracking is None or send.channel != EMAIL:
            return None
        claims = Claims(send.dispatch_id, send.campaign, send.variant, send.channel, send.user, send.decided_ms)
        return self._tracking.links(claims)

    def _compiled(self, send: Send) -> Render:
        key = (send.version, send.campaign, send.variant)
        render = self._renders.get(key)
        if render is None:
            if len(self._renders) >= COMPILED_MAX:
                self._renders.clear()
            message = self._workspaces.of(send.version).campaigns[send.campaign].messages[send.variant]
            render = self._renders[key] = CHANNELS[send.channel].compile(message, self._renderer)
        return render
