"""Templates of texts and fields alone, held to the whole machinery."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.render.engine import RenderContext, Renderer, Template, _names
from channels.render.errors import RenderError
from channels.render.plain import plain_of
from channels.render.scope import Scope
from streams.events import JSONValue

RENDERER = Renderer()
FIELDS = ("${a}", "${b}", "${first}", "${size}", "custom_attribute.${a}", "event_properties.${b}", "canvas.${a}")
PRINTS = (
    *(f"{{{{ {field} }}}}" for field in FIELDS),
    *(f"{{{{{field} | default: 'né'}}}}" for field in FIELDS),
    *('{{ ${b} | default: "" }}', "{{- ${a} -}}"),
)
SPECIAL = ("{{ ${a} | upcase }}", "{{ ${a}.b }}", "{{ ${a} | default: 3 }}", "{% if ${a} %}1{% endif %}", "{{ 'x' }}")
TEXTS = st.text("ab \n{%é<&\ud83d", max_size=6)
VALUES: st.SearchStrategy[JSONValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
MAPPINGS = st.dictionaries(st.sampled_from(("a", "b", "first", "size")), VALUES, max_size=4)


def whole(template: Template, context: RenderContext) -> str:
    """What the machinery gives, whatever the template."""
    return template._render_nodes(Scope(template._bound, _names(context), context.now_s))


def told(template: Template, context: RenderContext, *, by_machinery: bool) -> str:
    """The text, or the error and its place."""
    try:
        return whole(template, context) if by_machinery else template.render(context)
    except RenderError as error:
        return f"{type(error).__name__}: {error}"


@given(st.lists(st.sampled_from(PRINTS) | st.text("ab \né<&", max_size=6), max_size=6), MAPPINGS, MAPPINGS, MAPPINGS)
def test_a_plain_template_gives_what_any_would(
    pieces: list[str], profile: dict[str, JSONValue], custom: dict[str, JSONValue], properties: dict[str, JSONValue]
) -> None:
    """Texts and fields of whatever values give the same text, or the same error, as by the whole machinery."""
    template = RENDERER.compile("".join(pieces))
    context = RenderContext(profile, custom, properties, other={"canvas": {"a": "c"}} if profile else {})

    assert template._plain is not None
    assert told(template, context, by_machinery=True) == told(template, context, by_machinery=False)


@pytest.mark.parametrize("special", SPECIAL)
def test_what_is_more_than_plain_is_left_to_the_machinery(special: str) -> None:
    """One tag, path into a value, literal or other filter, and nothing of the template is taken for plain."""
    assert plain_of(RENDERER.compile(f"a{{{{ ${{a}} }}}}{special}")._bound.nodes) is None


def test_what_is_too_long_is_left_to_the_machinery() -> None:
    """Fields that together print more than the limit of an output are no plain text any more."""
    template = RENDERER.compile("{{ ${a} }}" * 3)
    assert template._plain is not None

    assert template._plain.render(_names(RenderContext({"a": "é" * 174_762}))) is not None
    assert template._plain.render(_names(RenderContext({"a": "é" * 174_763}))) is None


def test_a_value_that_cannot_be_printed_has_its_place() -> None:
    """A number too long to print fails where it stands, as by the whole machinery."""
    template, context = RENDERER.compile("a {{ ${a} }}"), RenderContext({"a": 10**5_000})

    assert told(template, context, by_machinery=False) == told(template, context, by_machinery=True)
    assert told(template, context, by_machinery=False).startswith("RenderFailure")
