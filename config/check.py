"""Where each setting in force comes from."""

import os
from collections.abc import Mapping

from config.settings import PREFIX, SECRETS, Settings


def check_settings(settings: Settings, environment: Mapping[str, str] | None = None) -> list[dict[str, object]]:
    """Every setting by its variable's name: its value, secrets masked, its source and its meaning.

    The source is `env`, `file` for a secret that `…_FILE` names, or `default`; an empty variable means its
    default, but for `HEADRACE_HTTP`.
    """
    env = os.environ if environment is None else environment
    values = settings.model_dump(mode="json")
    return [
        {
            "name": PREFIX + name.upper(),
            "value": "***" if name in SECRETS and values[name] else values[name],
            "source": _source(name, env),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _source(name: str, env: Mapping[str, str]) -> str:
    variable = PREFIX + name.upper()
    if name in SECRETS and f"{variable}_FILE" in env:
        return "file"
    is_given = env.get(variable) or (name == "http" and variable in env)
    return "env" if is_given else "default"
