"""The translation of `${…}` changes nothing else, and fails in one way only."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.render import MessageAborted, RenderContext, Renderer, RenderError, RenderLimit, TemplateError
from channels.render.syntax import translate

RENDERER = Renderer()
SIGNS = [
    *(
        "{{",
        "}}",
        "{%",
        "%}",
        "{{{",
        "}}}",
        "{%-",
        "-%}",
        "-}}",
        "{",
        "}",
        "%",
        "'",
        '"',
        "[",
        "]",
        "(",
        ")",
        ".",
        "|",
    ),
    *(
        "<!--",
        "-->",
        " ",
        "\n",
        "\r\n",
        "é",
        "if",
        "endif",
        "raw",
        "endraw",
        "comment",
        "endcomment",
        "doc",
        "liquid",
    ),
    *(
        "x",
        "custom_attribute",
        "for i in",
        "endfor",
        "==",
        "1",
        "upcase",
        ":",
        ",",
        "#",
        "abort_message",
        "__profile",
    ),
]
FIELDS = ["$", "${", "${x}", "${a b}", "custom_attribute.${x}", ".${", "${'}", "${x | y}", "${}"]
SOUP = st.lists(st.sampled_from([*SIGNS, *FIELDS]), max_size=30).map("".join) | st.text(max_size=60)
WITHOUT_FIELDS = st.lists(st.sampled_from([sign for sign in SIGNS if "{{" not in sign]), max_size=30).map("".join)


@given(WITHOUT_FIELDS | st.text(st.characters(exclude_characters="${"), max_size=60))
def test_identity_without_fields(text: str) -> None:
    """A text without `$` and without nested braces comes back as it is, unless it is refused."""
    with suppress(TemplateError):
        assert text == translate(text).text


@given(st.lists(st.sampled_from(["{{ x }}", "{{ 'a' | upcase }}", "{% if x == 1 %}", "{% endif %}", "}}", "text"])))
def test_identity_of_plain_liquid(parts: list[str]) -> None:
    """Plain Liquid is left alone."""
    assert "".join(parts) == translate("".join(parts)).text


@given(SOUP, st.booleans())
def test_translation_raises_template_errors_only(text: str, html: bool) -> None:
    """Whatever the text, it is translated or refused with a place inside it."""
    translation = refused = None
    try:
        translation = translate(text, html=html)
    except TemplateError as error:
        refused = error
    if translation is None:
        assert refused is not None
        assert 1 <= refused.line <= text.count("\n") + 1
        assert 1 <= refused.column <= len(text) + 1
        return
    for index in range(len(translation.text)):
        start, end = translation.origin(index, index + 1)
        assert 0 <= start < end <= len(text)
        assert translation.text[index] == text[start] or "$" in text[start:end]


@given(SOUP, st.booleans())
def test_compiling_and_rendering_raise_our_errors_only(text: str, html: bool) -> None:
    """Whatever the text, it becomes a message or an error of our tree."""
    with suppress(RenderError, MessageAborted):
        RENDERER.compile(text, html=html).render(RenderContext(profile={"x": 1, "a b": [1, {"x": None}]}, now_s=0))


@given(st.text())
def test_text_without_tags_is_printed(text: str) -> None:
    """A text without tags is its own message, unless half a surrogate pair makes it none."""
    if "{{" not in text and "{%" not in text:
        assert text == RENDERER.compile(text).render(RenderContext())


@given(st.text())
def test_header_fields_have_no_line_ends(value: str) -> None:
    """No value makes a header field more than one line, by whatever counts as a line's end."""
    rendered = RENDERER.compile("{{ ${x} }}", one_line=True).render(RenderContext(profile={"x": value}))

    assert len(rendered.splitlines()) <= 1


def test_size_is_measured_in_bytes() -> None:
    """A template at the limit is compiled, one byte more is not."""
    RENDERER.compile("x" * 256 * 1024)
    with pytest.raises(RenderLimit, match="template_bytes of 262,144"):
        RENDERER.compile("x" * 256 * 1024 + "x")
