"""The standard profile fields: their names, their shapes and their names in templates."""

import re
from typing import Final

from streams.errors import BadInput
from streams.events import JSONValue

SUBSCRIPTION_STATES: Final = ("opted_in", "subscribed", "unsubscribed")

# Reserved field -> the name that `{{ ${…} }}` uses for it.
STANDARD: Final = {
    "first_name": "first_name",
    "last_name": "last_name",
    "email": "email_address",
    "phone": "phone_number",
    "home_city": "city",
    "country": "country",
    "language": "language",
    "gender": "gender",
    "dob": "date_of_birth",
    "time_zone": "time_zone",
    "email_subscribe": "email_subscribe",
    "push_subscribe": "push_subscribe",
    "image_url": "image_url",
}
BY_TAG: Final = {tag: field for field, tag in STANDARD.items()}

TEXT_CHARS_MAX: Final = 255
"""Of a text, as in Braze, which cuts off what is longer; we refuse it and say so."""

LONGER_CHARS_MAX: Final = {"email": 320, "image_url": 1_024}
"""Of the standard fields that may be longer."""

_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f<>,;:\"()\[\]\\]{1,64}@[^@\s\x00-\x1f<>,;:\"()\[\]\\]{1,255}")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_GENDERS: Final = ("M", "F", "O", "N", "P")


def check_length(name: str, value: JSONValue, reason: str = "bad_value") -> None:
    """Refuse a text that is too long for an attribute. Raises BadInput with the reason, naming the field."""
    chars_max = LONGER_CHARS_MAX.get(name, TEXT_CHARS_MAX)
    if isinstance(value, str) and len(value) > chars_max:
        raise BadInput(reason, name[:40], f"{len(value)} characters, at most {chars_max}; shorten it")


def check_standard(field: str, value: JSONValue) -> None:
    """Refuse a value that the standard field cannot take; null deletes and is always fine.

    Raises:
        BadInput: `wrong_type` or `bad_value`, naming the field.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise BadInput("wrong_type", field, f"Expected `str`, got `{type(value).__name__}`")
    if field == "email" and _EMAIL.fullmatch(value) is None:
        raise BadInput("bad_value", field, "not an address of the form name@domain")
    if field in ("email_subscribe", "push_subscribe") and value not in SUBSCRIPTION_STATES:
        raise BadInput("bad_value", field, f"not one of {', '.join(SUBSCRIPTION_STATES)}")
    if field == "dob" and _DAY.fullmatch(value) is None:
        raise BadInput("bad_value", field, "not of the form YYYY-MM-DD")
    if field == "gender" and value not in _GENDERS:
        raise BadInput("bad_value", field, f"not one of {', '.join(_GENDERS)}")
