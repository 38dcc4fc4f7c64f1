"""Email: templates to MIME."""

from typing import Final

from channels.channel import Channel, Envelope, Render, Request, Skipped
from channels.mime import Mail, build_mail
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

    def render(envelope: Envelope, context: RenderContext) -> Request:
        address = to.render(context)
        if not address:
            raise Skipped("no_address")
        mail = Mail(
            envelope.dispatch_id,
            envelope.campaign,
            envelope.decided_ms,
            sender.render(context),
            address,
            reply_to.render(context),
            subject.render(context),
            text.render(context),
            html.render(context),
        )
        return Request(envelope.dispatch_id, address, build_mail(mail))

    return render


CHANNEL: Final = Channel("email", compile_)
