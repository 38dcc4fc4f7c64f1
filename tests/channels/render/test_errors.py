"""What an error shows, and what it must never show."""

from traceback import format_exception

import pytest

from channels.render import MessageAborted, RenderContext, Renderer, RenderError, RenderFailure, TemplateError

RENDERER = Renderer()


def test_caret_stands_under_the_original_text() -> None:
    """An error quotes the line as it was written, with carets under the offending part."""
    with pytest.raises(TemplateError) as error:
        RENDERER.compile("Hello\n{{custom_attribute.${zip code} | shout: 1}} there")

    assert str(error.value) == (
        "line 2, column 34: unknown filter 'shout'\n"
        "2 | {{custom_attribute.${zip code} | shout: 1}} there\n"
        "  |                                  ^^^^^"
    )


def test_a_field_is_underlined_whole() -> None:
    """An error at a field underlines the field as written, not its translation."""
    with pytest.raises(TemplateError) as error:
        RENDERER.compile("{{ foo.${zip code} }}")

    assert str(error.value).endswith("\n  |    ^^^^^^^^^^^^^^^")


def test_long_lines_are_cut() -> None:
    """Of a line of minified HTML only the surroundings of the error are shown."""
    with pytest.raises(TemplateError) as error:
        RENDERER.compile("x" * 5000 + "{{ a | shout }}" + "y" * 5000)
    shown = str(error.value).split("\n")

    assert (len(shown[1]) - 4, shown[1][shown[2].index("^") : shown[2].rindex("^") + 1]) == (100, "shout")


def test_an_error_holds_no_data_of_the_user() -> None:
    """No failure of a render repeats a value from the profile."""
    secret = "ada@example.com"
    templates = (
        *("{{ ${x} | divided_by: 0 }}", "{{ ${x} | slice: ${x} }}", "{{ ${x} | truncate: ${x} }}"),
        *("{% if ${x} < 3 %}{% endif %}", "{{ ${x} | round: ${x} }}", "{{ ${x} | base64_decode }}"),
        *("{{ 0 | time_zone: ${x} }}", "{% for i in (1..3) limit: ${x} %}{% endfor %}"),
        *("{{ ${x} | compact: 'a' }}", "{{ ${x} | uniq: 'a' }}", "{{ ${x} | concat: ${x} }}"),
    )
    for text in templates:
        template = RENDERER.compile(text)
        with pytest.raises(RenderFailure) as failed:
            template.render(RenderContext(profile={"x": secret}))

        assert secret not in "".join(format_exception(failed.value, limit=0))


def test_an_abort_is_no_error() -> None:
    """Whoever catches RenderError does not swallow the decision not to send."""
    assert not issubclass(MessageAborted, RenderError)
