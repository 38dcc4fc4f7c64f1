"""Email: templates to MIME."""

from collections.abc import Callable
from typing import Final

import msgspec

from channels.channel import Channel, Envelope, Render, Request, Skipped
from channels.links import read_html, read_text, rewrite_html, rewrite_text
from channels.mail_address import MailAddress, read_address
from channels.mime import HEADER_URL_CHARS_MAX, Mail, build_mail, read_unsubscribe
from channels.render.engine import RenderContext, Renderer
from channels.render.field import compile_field
from channels.tracking import LINK_NAMES, PREFERENCE_CENTER, Links, PreferencePages
from config import metrics
from streams.campaigns.template_fields import fields_joined, fields_read
from streams.definitions import EmailMessage, Message

SENDER_DEFAULT: Final = "Headrace <no-reply@localhost>"
NO_UNSUBSCRIBE: Final = "none"


def compile_(message: Message, renderer: Renderer) -> Render:
    """Parse subject, addresses and bodies once. Raises RenderError with the place in the template."""
    assert isinstance(message, EmailMessage)
    to = compile_field(renderer, message.to)
    subject = compile_field(renderer, message.subject)
    sender = compile_field(renderer, message.from_ or SENDER_DEFAULT)
    reply_to = compile_field(renderer, message.reply_to)
    own_unsubscribe = "" if message.list_unsubscribe == NO_UNSUBSCRIBE else message.list_unsubscribe
    unsubscribe = compile_field(renderer, own_unsubscribe)
    bodies = _bodies(message, renderer)
    names_links = _names_links(message)

    def render(envelope: Envelope, context: RenderContext) -> Request:
        links = envelope.links
        if names_links:
            context = _with_links(context, links)
        to_text = to(context)
        if not to_text:
            raise Skipped("no_address")
        address = _address("to", to_text)
        answers_to = reply_to(context)
        target = _unsubscribe(unsubscribe(context))
        is_ours = links is not None and not message.list_unsubscribe
        text, html = bodies(context, links)
        mail = Mail(
            envelope.dispatch_id,
            envelope.campaign,
            envelope.decided_ms,
            _address("from", sender(context)),
            address,
            _address("reply_to", answers_to) if answers_to else None,
            subject(context),
            text,
            html,
            _fit(links.unsubscribe) if is_ours and links else target,
            is_ours,
            _fit(links.bounce) if links else "",
        )
        return Request(envelope.dispatch_id, address.mailbox, build_mail(mail))

    return render


def _bodies(message: EmailMessage, renderer: Renderer) -> Callable[[RenderContext, Links | None], tuple[str, str]]:
    """How text and html are rendered, their links rewritten if they are tracked."""
    text = compile_field(renderer, message.text, one_line=False)
    html = compile_field(renderer, message.html, one_line=False, html=True)
    # Found once, where the same for everyone.
    constant_text = None if "{" in message.text else read_text(text(RenderContext()))
    constant_html = None if "{" in message.html else read_html(html(RenderContext()))

    def bodies(context: RenderContext, links: Links | None) -> tuple[str, str]:
        if links is None or not message.tracking:
            return text(context), html(context)
        plain = read_text(text(context)) if constant_text is None else constant_text
        page = read_html(html(context)) if constant_html is None else constant_html
        shown = rewrite_html(page, links.click, links.pixel) if page.text.strip() else ""
        return rewrite_text(plain, links.click), shown

    return bodies


def _names_links(message: EmailMessage) -> bool:
    """Whether a template names one of the links to our door."""
    texts = (message.subject, message.text, message.list_unsubscribe)
    reads = fields_joined([*map(fields_read, texts), fields_read(message.html, html=True)])
    pages = any(name.startswith(f"{PREFERENCE_CENTER}.") for name in reads.other)
    return pages or not LINK_NAMES.isdisjoint(reads.profile)


def _with_links(context: RenderContext, links: Links | None) -> RenderContext:
    """The context with the links by their names; a mail that promises a way out and has none is not sent."""
    if links is None:
        raise Skipped("no_tracking: it names a link to the door; set HEADRACE_TRACKING_URL and HEADRACE_SIGNING_KEY")
    profile = {**context.profile, **links.named()}
    pages = {PREFERENCE_CENTER: PreferencePages(links.preferences)}
    return msgspec.structs.replace(context, profile=profile, other={**context.other, **pages})


def _fit(target: str) -> str:
    """What a header can hold in one piece, else nothing: a very long user key makes very long links."""
    if len(target) <= HEADER_URL_CHARS_MAX:
        return target
    metrics.LIMIT_HITS.labels("header_url_chars").inc()
    return ""


def _address(field: str, text: str) -> MailAddress:
    """The one address in a rendered field; the reason never quotes it."""
    address = read_address(text)
    if address is None:
        raise Skipped(f"bad_address: {field} is not one mail address")
    return address


def _unsubscribe(text: str) -> str:
    target = read_unsubscribe(text) if text else ""
    if target is None:
        raise Skipped("bad_list_unsubscribe: write mailto: or https:")
    return target


CHANNEL: Final = Channel("email", compile_)
