"""Email: templates to MIME."""

from typing import Final

from channels.channel import Channel, Envelope, Render, Request, Skipped
from channels.mail_address import MailAddress, read_address
from channels.mime import Mail, build_mail, read_unsubscribe
from channels.render.engine import RenderContext, Renderer
from streams.definitions import EmailMessage, Message

SENDER_DEFAULT: Final = "Headrace <no-reply@localhost>"


def compile_(message: Message, renderer: Renderer) -> Render:
    """Parse subject, addresses and bodies once. Raises RenderError with the place in the template."""
    assert isinstance(message, EmailMessage)
    to = renderer.compile(message.to, one_line=True)
    subject = renderer.compile(message.subject, one_line=True)
    sender = renderer.compile(message.from_ or SENDER_DEFAULT, one_line=True)
    reply_to = renderer.compile(message.reply_to, one_line=True)
    text = renderer.compile(message.text)
    html = renderer.compile(message.html, html=True)

    unsubscribe = renderer.compile(message.list_unsubscribe, one_line=True)

    def render(envelope: Envelope, context: RenderContext) -> Request:
        to_text = to.render(context)
        if not to_text:
            raise Skipped("no_address")
        address = _address("to", to_text)
        answers_to = reply_to.render(context)
        mail = Mail(
            envelope.dispatch_id,
            envelope.campaign,
            envelope.decided_ms,
            _address("from", sender.render(context)),
            address,
            _address("reply_to", answers_to) if answers_to else None,
            subject.render(context),
            text.render(context),
            html.render(context),
            _unsubscribe(unsubscribe.render(context)),
        )
        return Request(envelope.dispatch_id, address.mailbox, build_mail(mail))

    return render


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
