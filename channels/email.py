"""Email: templates to MIME."""

from typing import Final

from channels.channel import Channel, Envelope, Render, Request, Skipped
from channels.mail_address import MailAddress, read_address
from channels.mime import Mail, build_mail, read_unsubscribe
from channels.render.engine import RenderContext, Renderer
from channels.render.field import compile_field
from streams.definitions import EmailMessage, Message

SENDER_DEFAULT: Final = "Headrace <no-reply@localhost>"


def compile_(message: Message, renderer: Renderer) -> Render:
    """Parse subject, addresses and bodies once. Raises RenderError with the place in the template."""
    assert isinstance(message, EmailMessage)
    to = compile_field(renderer, message.to)
    subject = compile_field(renderer, message.subject)
    sender = compile_field(renderer, message.from_ or SENDER_DEFAULT)
    reply_to = compile_field(renderer, message.reply_to)
    unsubscribe = compile_field(renderer, message.list_unsubscribe)
    text = compile_field(renderer, message.text, one_line=False)
    html = compile_field(renderer, message.html, one_line=False, html=True)

    def render(envelope: Envelope, context: RenderContext) -> Request:
        to_text = to(context)
        if not to_text:
            raise Skipped("no_address")
        address = _address("to", to_text)
        answers_to = reply_to(context)
        mail = Mail(
            envelope.dispatch_id,
            envelope.campaign,
            envelope.decided_ms,
            _address("from", sender(context)),
            address,
            _address("reply_to", answers_to) if answers_to else None,
            subject(context),
            text(context),
            html(context),
            _unsubscribe(unsubscribe(context)),
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
