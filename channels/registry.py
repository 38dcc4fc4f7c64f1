"""The channels, found by their files."""

from typing import Final

from channels import email, log, webhook
from channels.channel import Channel

CHANNELS: Final[dict[str, Channel]] = {part.CHANNEL.name: part.CHANNEL for part in (email, log, webhook)}
