"""Mails carry links back to our door: signed, on by default where there is a door, and never a broken way out."""

from collections.abc import Mapping
from email.message import EmailMessage
from html.parser import HTMLParser

import pytest

from channels.channel import Envelope, Skipped
from channels.email import compile_
from channels.render.engine import RenderContext, Renderer
from channels.tracking import Links, Tracking
from streams.definitions import EmailMessage as Definition
from streams.engagement import Claims, TokenKind, verify
from streams.events import JSONValue
from tests.channels.test_mime import parse

KEYS = (b"k" * 32,)
DISPATCH = "0123456789abcdef" * 2
CLAIMS = Claims(DISPATCH, "win_back", "", "email", "ann", 1_764_000_000_000)
BASE = "https://t.example"
HTML = '<p>Hi {{ ${first_name} | escape }}<a href="https://shop.example/?a=1&amp;b={{ ${user_id} }}">shop</a></p>'


def links(base: str = BASE, claims: Claims = CLAIMS) -> Links:
    """The links of one dispatch."""
    return Tracking(base, KEYS).links(claims)


def mail(
    message: Definition, of: Links | None, profile: Mapping[str, JSONValue] | None = None
) -> tuple[EmailMessage, bytes]:
    """A mail of a definition, as an independent reader sees it, and its bytes."""
    context = RenderContext(profile={"user_id": "ann", **(profile or {})})
    request = compile_(message, Renderer())(Envelope(DISPATCH, "win_back", 0, links=of), context)
    return parse(request.body), request.body


def body(message: EmailMessage, kind: str) -> str:
    """One of the two bodies."""
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


class Targets(HTMLParser):
    """What a mail program would load or follow."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a":
            self.links.append(found.get("href") or "")
        elif tag == "img":
            self.images.append(found.get("src") or "")


def token_of(url: str, letter: str, kind: TokenKind) -> str:
    """Where a link of ours leads; it must be a token of this dispatch and this kind."""
    prefix = f"{BASE}/t/{letter}/"
    assert url.startswith(prefix)
    token = verify(KEYS, url.removeprefix(prefix), (kind,))
    assert token.claims == CLAIMS
    return token.url


def test_links_lead_through_the_door() -> None:
    """Links of HTML and text become ours, each bound to its own target, and an image of ours ends the body."""
    message = Definition(to="a@b.c", subject="s", text="See https://shop.example/x.", html=HTML)
    found, _ = mail(message, links())
    targets = Targets(body(found, "html"))
    text = body(found, "plain")

    assert [token_of(url, "c", "click") for url in targets.links] == ["https://shop.example/?a=1&b=ann"]
    assert [token_of(url, "o", "open") for url in targets.images] == [""]
    assert token_of(text.removeprefix("See ").strip().removesuffix("."), "c", "click") == "https://shop.example/x"


def test_the_same_dispatch_has_the_same_bytes() -> None:
    """Rendering again gives the very bytes that were recorded, so that a repeat is no other mail."""
    message = Definition(to="a@b.c", subject="s", text="https://a.b", html=HTML)

    assert mail(message, links())[1] == mail(message, links())[1]


def test_unsubscribing_in_one_click() -> None:
    """By default the headers of RFC 8058 name our door; an operator's own address, or none, takes their place."""
    found, _ = mail(Definition(to="a@b.c", subject="s", text="t"), links())
    target = str(found["List-Unsubscribe"])

    assert token_of(target.strip("<>"), "u", "unsubscribe") == ""
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert verify(KEYS, str(found["X-Headrace-Proof"]), ("bounce",)).claims == CLAIMS
    own, _ = mail(Definition(to="a@b.c", subject="s", text="t", list_unsubscribe="mailto:x@y.z"), links())
    assert (own["List-Unsubscribe"], own["List-Unsubscribe-Post"]) == ("<mailto:x@y.z>", None)
    none, _ = mail(Definition(to="a@b.c", subject="s", text="t", list_unsubscribe="none"), links())
    assert (none["List-Unsubscribe"], none["List-Unsubscribe-Post"]) == (None, None)
    off, _ = mail(Definition(to="a@b.c", subject="s", text="t"), None)
    assert (off["List-Unsubscribe"], off["X-Headrace-Proof"]) == (None, None)


@pytest.mark.parametrize("name", ["set_user_to_unsubscribed_url", "unsubscribe_url"])
def test_templates_name_the_way_out(name: str) -> None:
    """The unsubscribe link stands where a template names it, is no click, and no attribute replaces it."""
    message = Definition(to="a@b.c", subject="s", html=f'<a href="{{{{ ${{{name}}} }}}}">out</a>')
    found, _ = mail(message, links(), {name: "https://evil.example"})

    assert token_of(Targets(body(found, "html")).links[0], "u", "unsubscribe") == ""
    with pytest.raises(Skipped, match="no_tracking"):
        mail(message, None)


@pytest.mark.parametrize("tag", ["${preference_center_url}", "preference_center.${any}", "${set_user_to_opted_in_url}"])
def test_templates_name_the_preference_page(tag: str) -> None:
    """Each of Braze's names for the page of preferences gives ours, in text as in HTML."""
    found, _ = mail(Definition(to="a@b.c", subject="s", text=f"{{{{ {tag} }}}}"), links())

    assert token_of(body(found, "plain").strip(), "p", "preferences") == ""


def test_a_campaign_without_tracking() -> None:
    """With `tracking: false` bodies are as written, and one can still unsubscribe."""
    message = Definition(
        to="a@b.c", subject="s", html='<a href="https://a.b">x</a>{{ ${unsubscribe_url} }}', tracking=False
    )
    found, _ = mail(message, links())
    html = body(found, "html")

    assert Targets(html).links == ["https://a.b"]
    assert Targets(html).images == []
    assert f"{BASE}/t/u/" in html
    assert found["List-Unsubscribe-Post"] is not None


def test_a_user_s_values_are_read_as_they_are_shown() -> None:
    """A link that a user's value makes leads through the door; markup in it can do no more than before."""
    message = Definition(to="a@b.c", subject="s", html="<p title='{{ ${x} }}'>{{ ${y} }}</p><a href=https://a.b>z</a>")
    found, _ = mail(
        message,
        links(),
        {"x": "<a href=https://in.title>", "y": '<a href="javascript:alert(1)"><a href="https://in.text">'},
    )
    targets = Targets(body(found, "html"))

    assert targets.links[0] == "javascript:alert(1)"
    assert [token_of(url, "c", "click") for url in targets.links[1:]] == ["https://in.text", "https://a.b"]
    assert "title='<a href=https://in.title>'" in body(found, "html")


def test_a_very_long_user_key_breaks_no_header() -> None:
    """Links too long for one line of a header are left out of it; the mail is whole."""
    long = Claims(DISPATCH, "c", "", "email", "u" * 987, 0)
    found, data = mail(Definition(to="a@b.c", subject="s", text="t", html=HTML), links(claims=long))

    assert (found["List-Unsubscribe"], found["List-Unsubscribe-Post"], found["X-Headrace-Proof"]) == (None, None, None)
    assert max(map(len, data.split(b"\n"))) <= 998


@pytest.mark.parametrize(
    ("profile", "shown"),
    [
        ({"first_name": "Ann"}, "Hi Ann"),
        ({}, "Hi there"),
        ({"first_name": ""}, "Hi there"),
        ({"first_name": None}, "Hi there"),
    ],
)
def test_a_first_name_has_a_fallback(profile: Mapping[str, JSONValue], shown: str) -> None:
    """`default` stands in for a first name that is missing, null or empty."""
    message = Definition(to="a@b.c", subject="Hi {{ ${first_name} | default: 'there' }}", text="t")

    assert mail(message, links(), profile)[0]["Subject"] == shown


@pytest.mark.parametrize(
    ("custom", "shown"),
    [({"preferred_name": "Annie"}, "Hi Annie"), ({"preferred_name": ""}, "Hi Ann"), ({}, "Hi Ann")],
)
def test_a_preferred_name_comes_first(custom: Mapping[str, JSONValue], shown: str) -> None:
    """A custom attribute is preferred to the first name, which is preferred to a word for everybody."""
    subject = "Hi {{ custom_attribute.${preferred_name} | default: ${first_name} | default: 'there' }}"
    message = Definition(to="a@b.c", subject=subject, text="t")
    context = RenderContext(profile={"first_name": "Ann"}, custom=custom)
    request = compile_(message, Renderer())(Envelope(DISPATCH, "c", 0), context)

    assert parse(request.body)["Subject"] == shown
