"""Which provider each channel has, by the settings, and what the settings refuse."""

from pathlib import Path

import pytest

from agents.delivery.providers import providers_of
from config.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, {"email": "outbox", "webhook": "outbox", "log": "outbox"}),
        ({"HEADRACE_SMTP": "smtp://h"}, {"email": "smtp", "webhook": "outbox", "log": "outbox"}),
        ({"HEADRACE_WEBHOOK_URL": "https://h/x"}, {"email": "outbox", "webhook": "http", "log": "outbox"}),
        ({"HEADRACE_HTTP_ALLOW": "10.0.0.0/8"}, {"email": "outbox", "webhook": "http", "log": "outbox"}),
        ({"HEADRACE_SMTP": "", "HEADRACE_HTTP_ALLOW": ""}, {"email": "outbox", "webhook": "outbox", "log": "outbox"}),
    ],
)
def test_a_channel_is_real_once_its_setting_is_there(
    tmp_path: Path, given: dict[str, str], names: dict[str, str]
) -> None:
    """Without its setting a channel goes to the outbox; with it to the provider; an empty one is none."""
    settings = load_settings({"HEADRACE_DATA": str(tmp_path), **given})

    found = {channel: provider.name for channel, provider in providers_of(settings).items()}
    assert found.pop("canary") == "canary"
    assert found == names


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("SMTP", "smtp://u:sekret@h:port"), ("SMTP", "sekret"), ("WEBHOOK_URL", "h/x"), ("WEBHOOK_URL", "ftp://h")),
        *(("HTTP_ALLOW", "10.0.0.1/8"), ("HTTP_ALLOW", "10.0.0.0/8;::1"), ("HTTP_ALLOW", "all")),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, value: str) -> None:
    """Each setting is checked at the start, by its name, and a secret is never quoted."""
    with pytest.raises(SettingsError, match=f"HEADRACE_{name}=") as caught:
        load_settings({f"HEADRACE_{name}": value})

    assert "sekret" not in str(caught.value)


def test_the_mail_server_may_be_a_file(tmp_path: Path) -> None:
    """HEADRACE_SMTP_FILE names a file with the value, and neither shows in the settings' text."""
    (tmp_path / "smtp").write_text("smtp://u:sekret@h\n")
    settings = load_settings({"HEADRACE_SMTP_FILE": str(tmp_path / "smtp")})

    assert settings.smtp == "smtp://u:sekret@h"
    assert "sekret" not in repr(settings)
