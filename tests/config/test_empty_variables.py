"""Empty variables, as shells and compose files write them."""

import pytest

from config.settings import PREFIX, Settings, load_settings


def test_an_empty_variable_of_the_environment_means_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the process's own environment leaves empty is as if unset, but for `http`, which is then off."""
    for name in Settings.model_fields:
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", "")

    assert load_settings() == load_settings({f"{PREFIX}HTTP": ""})
    assert load_settings().http == ""
