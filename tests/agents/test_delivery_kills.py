"""A real worker between real servers, killed at random moments: nothing is lost, and no mail is sent twice."""

from pathlib import Path

import pytest

from tests.agents.delivery_kills import never_twice, sent_once


async def test_without_kills_each_is_sent_once(tmp_path: Path) -> None:
    """A worker that nobody kills hands over every mail once, and makes every call once that is taken the first time."""
    await sent_once(tmp_path)


@pytest.mark.parametrize("seed", [1, 2])
async def test_under_kills_no_mail_is_sent_twice(tmp_path: Path, seed: int) -> None:
    """Under kill -9 each mail goes at most once, each call with the same bytes, and the uncertain is held."""
    await never_twice(tmp_path, seed)
