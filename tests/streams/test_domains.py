"""International domains: to the form that DNS knows, never to somebody else's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from streams.domains import ascii_domain, same_mailbox
from streams.policy.consent import why_not
from streams.profiles.row import Reachability


@pytest.mark.parametrize("name", ["bücher.example", "faß.de", "straße.de", "日本語.jp", "παράδειγμα.gr", "FAẞ.de"])
def test_a_domain_is_the_one_that_webhooks_call(name: str) -> None:
    """Mails and links go where a request to the same name goes."""
    assert ascii_domain(name) == URL(f"https://{name}/").raw_host


@given(st.text(max_size=60))
def test_no_domain_ever_raises(text: str) -> None:
    """Whatever stands for a domain becomes ASCII or is refused; what is ASCII stays as it is, so twice is as once."""
    found = ascii_domain(text)
    if found is not None:
        assert found.isascii()
        assert ascii_domain(found) == found
    if text.isascii():
        assert found == text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        *(("Ann@Faß.de", "ann@xn--fa-hia.de", True), ("ann@faß.de", "ann@fass.de", False)),
        *(("ann@bücher.example", "ANN@BÜCHER.example", True), ("ann@b.c", "ann@B.C", True)),
        *(("ann@b.c", "bob@b.c", False), ("ann@☃.net", "ann@☃.net", True), ("ann", "ann@b.c", False)),
    ],
)
def test_a_dead_address_is_known_in_each_form(one: str, other: str, same: bool) -> None:
    """An address that is blocked as a profile writes it is not mailed as a server knows it, nor the reverse."""
    for blocked, address in ((one, other), (other, one)):
        assert same_mailbox(blocked, address) is same
        assert why_not("email", {}, Reachability(blocked, "hard_bounced", 0), address) == (
            "hard_bounced" if same else ""
        )
