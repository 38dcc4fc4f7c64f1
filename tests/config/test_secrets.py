"""Secrets and personal data stay out of what is written: representations, refusals, logs."""

import io
import json
from contextlib import redirect_stderr

import pytest
import structlog

from config.logging import REDACTED, set_up_logging
from config.settings import SECRETS, SettingsError, load_settings

SECRET = "s3cr3t-word"
GIVEN = {
    "HEADRACE_KAFKA_SECURITY": "sasl_plaintext",
    "HEADRACE_KAFKA_USER": "u",
    "HEADRACE_KAFKA_PASSWORD": SECRET,
    "HEADRACE_API_KEY": SECRET,
    "HEADRACE_SIGNING_KEY": SECRET,
    "HEADRACE_SMTP": f"smtp://u:{SECRET}@mail.example:25",
}


def test_settings_never_show_a_secret() -> None:
    """Neither a representation nor a refusal of settings that hold secrets has one of them in it."""
    settings = load_settings(GIVEN)
    assert SECRET not in f"{settings!r}{settings}"
    for name, value in (("PARTITIONS", "0"), ("SMTP", f"nonsense://u:{SECRET}@x"), ("KAFKA_CA", "ca.pem")):
        with pytest.raises(SettingsError) as refused:
            load_settings(GIVEN | {f"HEADRACE_{name}": value})
        assert SECRET not in str(refused.value)
    assert set(SECRETS) == {"api_key", "smtp", "kafka_password", "signing_key"}


def test_logs_are_redacted_whoever_writes_them() -> None:
    """What may be a person's, or a secret, is replaced in every line, and the rest of the line stands."""
    written = io.StringIO()
    with redirect_stderr(written):
        structlog.reset_defaults()
        set_up_logging()
        structlog.get_logger("headrace").info("it happened", partition=3, **dict.fromkeys(REDACTED, SECRET))
        structlog.reset_defaults()
    line = json.loads(written.getvalue())
    assert (line["event"], line["partition"]) == ("it happened", 3)
    assert SECRET not in written.getvalue()
    assert {line[name] for name in REDACTED} == {"[redacted]"}
