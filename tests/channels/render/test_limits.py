"""Each limit is named by the error that its excess raises."""

from contextlib import suppress

import pytest

from channels.render import (
    RenderContext,
    Renderer,
    RenderError,
    RenderFailure,
    RenderLimit,
    TemplateError,
    limits,
)
from streams.events import JSONValue

RENDERER = Renderer()
CONTEXT = RenderContext(
    profile={"long": "x" * 200_000, "many": list(range(10_000)), "wide": "€" * 200_000},
    now_s=0,
)

EXCESSES = {
    "template_bytes": "é" * (128 * 1024) + "x",
    "output_bytes": "{{ ${long} }}" * 6,
    "loop_iterations": "{% for i in (1..101) %}{% for j in (1..100) %}{% endfor %}{% endfor %}",
    "block_depth": "{% if true %}" * 31 + "{% endif %}" * 31,
    "local_bytes": "".join(f"{{% assign {name} = ${{long}} %}}" for name in "abcdef"),
    "value_chars": "{{ ${long} | replace: 'x', ${long} }}",
    "list_items": "{{ ${long} | split: '' | size }}",
    "number_bits": "{% assign n = 9 %}" + "{% assign n = n | times: n %}" * 20,
    "work": "{% for i in (1..10000) %}{{ ${long} | escape | size }}{% endfor %}",
}


@pytest.mark.parametrize("limit", EXCESSES)
def test_excess_names_the_limit(limit: str) -> None:
    """A template beyond a limit raises RenderLimit with its name and what it allows."""
    with pytest.raises(RenderLimit) as excess:
        RENDERER.compile(EXCESSES[limit]).render(CONTEXT)

    assert (limit, getattr(limits, f"{limit.upper()}_MAX")) == (excess.value.limit, excess.value.value)


def test_limits_of_dates_refuse_instead() -> None:
    """A text beyond the limits of dates is no date, and a format beyond them is refused."""
    kept = RENDERER.compile("{{ ${d} | date: '%Y' }}").render(RenderContext(profile={"d": "2020" + " " * 200}))

    assert kept == "2020" + " " * 200
    with pytest.raises(RenderFailure, match="a format may have 256 characters"):
        RENDERER.compile("{{ 0 | date: ${long} }}").render(CONTEXT)


def test_context_depth_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scopes beyond their depth raise RenderLimit too, although blocks reach their own limit first."""
    template = RENDERER.compile("{% for i in (1..2) %}{% for j in (1..2) %}x{% endfor %}{% endfor %}")
    monkeypatch.setattr(RENDERER._env, "context_depth_limit", 3)

    with pytest.raises(RenderLimit, match="context_depth"):
        template.render(CONTEXT)


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in (1..999999999999) reversed %}x{% endfor %}",
        "{{ (1..999999999999) | join }}",
        "{% assign r = (1..999999999999) %}{{ r | reverse }}",
        "{{ ${many} | join: ${long} }}",
        "{% capture c %}" + "{{ ${long} }}" * 6 + "{% endcapture %}",
        "{% for i in (1..9) %}{% capture k %}{{ ${long} }}{{i}}{% endcapture %}{% cycle k: '' %}{% endfor %}",
        "{% for i in (1..6000) %}x{% endfor %}{% for i in (1..6000) %}x{% endfor %}",
        "{% for i in (1..10000) %}" + "{% if true %}{% endif %}" * 100 + "{% endfor %}",
        "{% for i in (1..10000) %}{% assign x = ${many} | sort %}{% endfor %}",
        "{% for i in (1..10000) %}{{ ${long} | md5 }}{% endfor %}",
        "{% for i in (1..10000) %}{% capture c %}{{ ${long} }}{% endcapture %}{% endfor %}",
        "{{ ${wide} }}" * 3,
        "{% for i in (1..10000) %}{% if ${long} contains 'y' %}{% endif %}{% endfor %}",
    ],
    ids=lambda text: text[:40],
)
def test_no_way_around_the_limits(text: str) -> None:
    """A template that would fill memory or run for long is stopped by some limit."""
    with pytest.raises(RenderLimit):
        RENDERER.compile(text).render(CONTEXT)


@pytest.mark.parametrize(
    "text",
    [
        "{{" + " " * 200_000 + "}}",
        "{% if" + " " * 200_000 + "%}",
        "{{ " * 80_000,
        "{% raw %}" * 25_000,
        "{% comment %}{{" + " " * 200_000 + "}}{% endcomment %}",
        "{% comment %}" + "{{ " * 80_000,
        "{{ " + "(" * 200_000 + " }}",
        "{{ a" + '["' * 100_000 + " }}",
        "{% if a" + " and a" * 30_000 + " %}{% endif %}",
    ],
    ids=lambda text: text[:16],
)
def test_no_text_is_slow_to_refuse(text: str) -> None:
    """Texts on which the lexer or the parser would hang or overflow are refused at once."""
    with pytest.raises(TemplateError):
        RENDERER.compile(text)


@pytest.mark.parametrize("value", ["9" * 5000, "1e999", "-1e999", "nan", 10**400, {"a": 1}, [1, [2]], True, None, ""])
@pytest.mark.parametrize("name", sorted(RENDERER._filters))
def test_filters_raise_only_our_errors(name: str, value: JSONValue) -> None:
    """Whatever a filter is given, a message is rendered or fails with an error of our tree."""
    for arguments in ("", ": ${v}", ": 'a', ${v}", ": 1, 2"):
        with suppress(RenderError):
            template = RENDERER.compile("{{ ${v} | " + name + arguments + " }}")
            template.render(RenderContext(profile={"v": value}, now_s=0))
