"""The filters that Braze adds to Liquid: digests, encodings, JSON, numbers."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Final
from urllib.parse import quote

import msgspec
from liquid.filter import num_arg

from channels.render.dates import Unfit
from channels.render.values import MISSING, to_json, to_text
from streams.events import JSONValue

# What a URL may hold as it is, by Ruby's URI.escape; a parameter may hold less.
_URL_SAFE: Final = "-_.!~*'();/?:@&=+$,[]"
_WIDE: Final = Context(prec=400, rounding=ROUND_HALF_UP)


def md5(text: str) -> str:
    """Return the MD5 digest in hex; it identifies, it does not protect."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def sha1(text: str) -> str:
    """Return the SHA-1 digest in hex; it identifies, it does not protect."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def sha2(text: str) -> str:
    """Return the SHA-256 digest in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def hmac_sha1_hex(text: str, key: object) -> str:
    """Return the HMAC-SHA-1 signature in hex."""
    return _signature(text, key, "sha1").hex()


def hmac_sha1_base64(text: str, key: object) -> str:
    """Return the HMAC-SHA-1 signature in Base64."""
    return base64.b64encode(_signature(text, key, "sha1")).decode()


def hmac_sha256_hex(text: str, key: object) -> str:
    """Return the HMAC-SHA-256 signature in hex; `hmac_sha256` is the same."""
    return _signature(text, key, "sha256").hex()


def hmac_sha256_base64(text: str, key: object) -> str:
    """Return the HMAC-SHA-256 signature in Base64."""
    return base64.b64encode(_signature(text, key, "sha256")).decode()


def hmac_sha512(text: str, key: object) -> str:
    """Return the HMAC-SHA-512 signature in hex."""
    return _signature(text, key, "sha512").hex()


def _signature(text: str, key: object, digest: str) -> bytes:
    return hmac.digest(to_text(key).encode(), text.encode(), digest)


def base64_encode(text: str) -> str:
    """Return the text's UTF-8 in Base64."""
    return base64.b64encode(text.encode()).decode()


def url_escape(text: str) -> str:
    """Return a URL with what it may not hold percent-encoded; `&` and `/` stay."""
    return quote(text, safe=_URL_SAFE)


def url_param_escape(text: str) -> str:
    """Return a text as part of a URL's parameter: everything but letters, digits and `-_.~` encoded."""
    return quote(text, safe="")


def property_accessor(value: object, key: object) -> object:
    """Return what an object holds under a key, missing where it is no object or has no such key."""
    return value.get(to_text(key), MISSING) if isinstance(value, Mapping) else MISSING


def json_escape(text: str) -> str:
    """Return a text as it stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def json_parse(text: str) -> JSONValue:
    """Return what a JSON text means, missing where it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return MISSING


def as_json_string(value: object) -> str:
    """Return a value as JSON: a text in quotes, a list or an object whole, a missing value as null."""
    return to_json(value)


def number_with_delimiter(value: object) -> str:
    """Return a number with commas between thousands; what is no number comes back as it is."""
    text = to_text(value)
    sign = text[:1] if text[:1] in {"-", "+"} else ""
    whole, point, rest = text[len(sign) :].partition(".")
    is_number = whole.isascii() and whole.isdigit() and (rest.isdigit() if point else True)
    return f"{sign}{int(whole):,}{point}{rest}" if is_number else text


def money(value: object) -> str:
    """Return a number with two decimals, rounded half up; unlike Shopify's, 145 is 145.00."""
    return f"{rounded(value, 2):.2f}"


def rounded(value: object, digits: int) -> Decimal:
    """Return a number with so many decimals (tens and hundreds below zero), halves away from zero.

    Raises:
        Unfit: it is infinite, or not a number at all though written as one (`nan`).
    """
    number = Decimal(str(num_arg(value, 0)))
    if not number.is_finite():
        raise Unfit("the number is not finite")
    return number.quantize(Decimal(1).scaleb(-digits), context=_WIDE)
