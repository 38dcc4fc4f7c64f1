"""Keys of the REST doors: what each may do, kept as a hash; the newest record of the keys topic about a key holds."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final

import msgspec

from streams import topics
from streams.codec import to_json
from streams.errors import BadSetting, BadState
from streams.records import Output, Record

PARTITION: Final = 0
KEYS_MAX: Final = 1_000
NAME_CHARS_MAX: Final = 100
_ID: Final = re.compile(r"[0-9a-f]{12}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")

# Braze's permission names, one per endpoint, and `users.import`, which Braze has not. A key may be made for an
# endpoint before there is one.
SCOPES: Final = frozenset(
    f"{family}.{name}"
    for family, names in {
        "users": "track track.bulk track.sync delete alias.new alias.update identify merge external_ids.rename "
        "external_ids.remove export.ids export.segment export.global_control_group import",
        "messages": "send schedule.create schedule.update schedule.delete schedule_broadcasts live_activity.update",
        "campaigns": "trigger.send trigger.schedule.create trigger.schedule.update trigger.schedule.delete list "
        "data_series details duplicate url_info.details",
        "sends": "data_series id.create",
        "transactional": "send",
        "canvas": "trigger.send trigger.schedule.create trigger.schedule.update trigger.schedule.delete list "
        "data_series data_summary details url_info.details",
        "segments": "list data_series details",
        "events": "list data_series",
        "purchases": "product_list revenue_series quantity_series",
        "sessions": "data_series",
        "kpi": "dau.data_series mau.data_series new_users.data_series uninstalls.data_series",
        "email": "unsubscribe status hard_bounces bounce.remove spam.remove blacklist",
        "subscription": "status.set status.get groups.get",
        "sms": "invalid_phone_numbers invalid_phone_numbers.remove",
        "templates": "email.create email.info email.list email.update",
        "content_blocks": "info list create update",
        "preference_center": "get list update user.get",
        "catalogs": "add_items update_items replace_items delete_items get_items get_item create_item update_item "
        "replace_item delete_item create get delete create_fields create_selection",
        "sdk_authentication": "create primary delete keys",
    }.items()
    for name in names.split()
)


class ApiKey(msgspec.Struct, frozen=True):
    """A key without the key: `hash` is the SHA-256 of a text that its owner alone has."""

    id: str
    name: str
    scopes: tuple[str, ...]
    hash: str
    created_ms: int
    revoked_ms: int | None = None


_decoder: Final = msgspec.json.Decoder(ApiKey)


def new_key(known: Mapping[str, ApiKey], key: ApiKey) -> Output:
    """The record of a key that is made.

    Raises:
        BadSetting: an unknown scope, none at all, or too many keys.
    """
    unknown = [scope for scope in key.scopes if scope not in SCOPES]
    if unknown:
        near = get_close_matches(unknown[0], sorted(SCOPES), 3, 0.4) or ["users.track", "campaigns.list"]
        raise BadSetting(f"--scope {unknown[0][:40]}: no such permission; they are Braze's, such as {', '.join(near)}")
    if not key.scopes:
        raise BadSetting("a key without a scope opens nothing; give --scope, such as --scope users.track")
    if not (0 < len(key.name) <= NAME_CHARS_MAX and key.name.isprintable()):
        raise BadSetting(f"--name {key.name[:40]!r}: 1 to {NAME_CHARS_MAX} printable characters")
    if _ID.fullmatch(key.id) is None or _HASH.fullmatch(key.hash) is None or key.id in known:
        raise BadSetting(f"{key.id[:20]!r} cannot be a new key; make it with `keys create`")
    if sum(each.revoked_ms is None for each in known.values()) >= KEYS_MAX:
        raise BadSetting(f"there are {KEYS_MAX} keys; revoke one that nobody uses, `keys list` shows them")
    return _record(key)


def revoked_key(known: Mapping[str, ApiKey], key_id: str, now_ms: int) -> Output:
    """The record by which a key is revoked. Raises BadSetting if there is none, or it was revoked before."""
    key = known.get(key_id)
    if key is None:
        raise BadSetting(f"no key {key_id[:20]!r}; `keys list` shows them")
    if key.revoked_ms is not None:
        raise BadSetting(f"key {key_id} is revoked already")
    return _record(msgspec.structs.replace(key, revoked_ms=now_ms))


def read_keys(known: Mapping[str, ApiKey], records: Sequence[Record]) -> dict[str, ApiKey]:
    """The keys by their ids after further records. Raises BadState for one that we did not write."""
    keys = dict(known)
    for record in records:
        try:
            key = _decoder.decode(record.value)
        except msgspec.DecodeError as error:
            raise BadState(f"keys topic, offset {record.offset}: {error}; only `keys` writes there") from None
        keys[key.id] = key
    return keys


def _record(key: ApiKey) -> Output:
    return Output(topics.KEYS.name, PARTITION, key.id.encode(), to_json(key))
