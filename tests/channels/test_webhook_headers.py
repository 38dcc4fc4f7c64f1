"""Headers of webhooks: no rendered value begins another one, and none of ours can be set."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.channel import Envelope, Skipped
from channels.render.engine import RenderContext, Renderer
from channels.render.errors import TemplateError
from channels.webhook import CHANNEL
from streams.definitions import WebhookMessage

RENDER = CHANNEL.compile(
    WebhookMessage(url="https://a.example/", body="", headers={"X-Name": "{{ ${first_name} }}"}), Renderer()
)


@given(st.text() | st.sampled_from(["a\r\nX-Evil: 1", "a\nb", "\x00", "a\x0bb", "a\x85b", "a\u2028b"]))
def test_no_rendered_value_begins_a_header(value: str) -> None:
    """Whatever a user's field holds, the header is one line without control characters, or the webhook is not sent."""
    context = RenderContext({"first_name": value}, {}, {}, {}, now_s=0.0)
    try:
        request = json.loads(RENDER(Envelope("0" * 32, "c", 0), context).body)
    except Skipped:
        return
    assert sorted(request["headers"]) == ["Idempotency-Key", "X-Name"]
    assert not [char for char in request["headers"]["X-Name"] if (char < " " and char != "\t") or char == "\x7f"]


@pytest.mark.parametrize("name", ["Host", "content-length", "Idempotency-Key", "Proxy-Authorization", "a b", "a:", ""])
def test_ours_cannot_be_set(name: str) -> None:
    """A definition that sets what the connection decides, or the key of repeats, is refused."""
    with pytest.raises(TemplateError):
        CHANNEL.compile(WebhookMessage(url="https://a.example/", body="", headers={name: "x"}), Renderer())
