"""The links that a message carries back to our door: clicks, the open pixel, unsubscribing, preferences, bounces."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

from streams.engagement import Claims, SigningKeys, TokenKind, return_path, sign

_PATHS: Final[dict[TokenKind, str]] = {"open": "o", "click": "c", "unsubscribe": "u", "preferences": "p"}
_NAMES: Final[dict[str, TokenKind]] = {
    "set_user_to_unsubscribed_url": "unsubscribe",
    "unsubscribe_url": "unsubscribe",
    "set_user_to_one_click_list_unsubscribe": "unsubscribe",
    "set_user_to_subscribed_url": "preferences",
    "set_user_to_opted_in_url": "preferences",
    "preference_center_url": "preferences",
}
LINK_NAMES: Final = frozenset(_NAMES)
"""What templates call these links by, as `${unsubscribe_url}`."""

PREFERENCE_CENTER: Final = "preference_center"
"""The namespace of preference pages; there is one page, whatever name stands in `preference_center.${…}`."""


class Links:
    """The links of one dispatch; the same dispatch always has the same."""

    def __init__(self, base: str, keys: SigningKeys, claims: Claims) -> None:
        self._base = base
        self._keys = keys
        self._claims = claims
        self._clicks: dict[str, str] = {}

    def click(self, url: str) -> str:
        """The link that leads to a web address by our door; one that is ours already stays as it is."""
        found = self._clicks.get(url)
        if found is None:
            found = url if url.startswith(f"{self._base}/t/") else self._link("click", url)
            self._clicks[url] = found
        return found

    @cached_property
    def pixel(self) -> str:
        """The image whose loading says that the message was opened."""
        return self._link("open")

    @cached_property
    def unsubscribe(self) -> str:
        """What a mail program posts to, and people get a page from, to be mailed no more."""
        return self._link("unsubscribe")

    @cached_property
    def preferences(self) -> str:
        """The page on which people choose."""
        return self._link("preferences")

    @cached_property
    def bounce(self) -> str:
        """A token, not a link: what proves that a bounce is of this message."""
        return sign(self._keys, self._claims, "bounce")

    @cached_property
    def return_path(self) -> str:
        """The same for the envelope's sender, short."""
        return return_path(self._keys, self._claims.dispatch_id)

    def named(self) -> dict[str, str]:
        """The links by the names that templates know them by."""
        urls = {"unsubscribe": self.unsubscribe, "preferences": self.preferences}
        return {name: urls[kind] for name, kind in _NAMES.items()}

    def _link(self, kind: TokenKind, url: str = "") -> str:
        return f"{self._base}/t/{_PATHS[kind]}/{sign(self._keys, self._claims, kind, url)}"


class Tracking:
    """Makes the links of dispatches; `base` is the door's public address."""

    def __init__(self, base: str, keys: SigningKeys) -> None:
        self.base = base
        self._keys = keys

    def links(self, claims: Claims) -> Links:
        """The links of a dispatch; making one costs nothing until it is used."""
        return Links(self.base, self._keys, claims)


class UnsentLinks(Links):
    """The links of a message that is only looked at: they count nothing and change nobody."""

    def click(self, url: str) -> str:
        """The target itself."""
        return url

    pixel = ""
    bounce = ""

    def _link(self, kind: TokenKind, url: str = "") -> str:
        return f"{self._base}/t/{_PATHS[kind]}/preview"


class UnsentTracking(Tracking):
    """Makes such links."""

    def __init__(self, base: str) -> None:
        super().__init__(base, ())

    def links(self, claims: Claims) -> Links:
        """The links of a message that is not sent."""
        return UnsentLinks(self.base, (), claims)


class PreferencePages(Mapping[str, str]):
    """`preference_center.${any name}` is the one preference page."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __getitem__(self, name: str) -> str:
        return self._url

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
