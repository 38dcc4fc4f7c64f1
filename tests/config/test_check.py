"""Settings as `config check` shows them: every one, with its source, and no secret."""

import pytest

from config.check import check_settings
from config.settings import SECRETS, Settings, SettingsError, load_settings


def test_every_setting_has_a_source_and_a_meaning() -> None:
    """What the environment says is `env`, an empty variable and what it leaves out is the default."""
    given = {"HEADRACE_DATA": "d", "HEADRACE_HTTP": "", "HEADRACE_APP": "", "HEADRACE_PARTITIONS": "8"}
    rows = check_settings(load_settings(given), given)

    assert [row["name"] for row in rows] == [f"HEADRACE_{name.upper()}" for name in Settings.model_fields]
    assert all(row["meaning"] for row in rows)
    sources = {str(row["name"]): row["source"] for row in rows}
    assert {name for name, source in sources.items() if source == "env"} == {
        "HEADRACE_DATA",
        "HEADRACE_HTTP",
        "HEADRACE_PARTITIONS",
    }
    assert {source for name, source in sources.items() if name not in given} == {"default"}


def test_a_secret_is_masked_and_says_that_a_file_holds_it() -> None:
    """A secret's value never shows, whichever way it came."""
    for env, source in ({"HEADRACE_API_KEY": "k"}, "env"), ({"HEADRACE_API_KEY_FILE": "f"}, "file"):
        rows = check_settings(Settings(api_key="k"), env)
        [row] = [row for row in rows if row["name"] == "HEADRACE_API_KEY"]
        assert (row["value"], row["source"]) == ("***", source)
    assert set(SECRETS) == {"api_key", "smtp", "kafka_password", "signing_key"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"SECURITY": "sasl_ssl", "USER": "u"}, "set HEADRACE_KAFKA_USER and HEADRACE_KAFKA_PASSWORD_FILE"),
        ({"USER": "u", "PASSWORD": "hidden"}, "are for sasl_ssl"),
        ({"CA": "ca.pem"}, "are for ssl and sasl_ssl"),
        ({"SECURITY": "ssl", "CERT": "c.pem"}, "set both"),
    ],
)
def test_half_a_guard_is_refused_without_its_secret(given: dict[str, str], says: str) -> None:
    """Settings that contradict each other are refused with the fix, and the refusal shows no other setting."""
    with pytest.raises(SettingsError, match=says) as refused:
        load_settings({f"HEADRACE_KAFKA_{name}": value for name, value in given.items()})
    assert "hidden" not in str(refused.value)
    assert "headrace" not in str(refused.value)


def test_a_session_shorter_than_brokers_take_is_refused_here() -> None:
    """Below Kafka's own `group.min.session.timeout.ms` no worker could join: the setting says so first."""
    assert load_settings({"HEADRACE_SESSION_S": "6"}).session_s == 6
    with pytest.raises(SettingsError, match=r"HEADRACE_SESSION_S='5\.9'.*6"):
        load_settings({"HEADRACE_SESSION_S": "5.9"})
