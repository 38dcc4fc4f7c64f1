"""The channels, found by their files."""

from typing import Final

from channels.channel import Channel
from channels import email, log, webhook

CHANNELS: Final[dict[str, Channel]] = {part.CHANNEL.name: part.CHANNEL for part in (email, log, webhook)}
