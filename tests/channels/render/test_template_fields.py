"""What a template reads is known before it is rendered."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from channels.render import MessageAborted, RenderContext, Renderer, RenderError
from streams.campaigns.template_fields import TemplateFields, fields_joined, fields_read
from tests.channels.render.samples import GOLDEN, Recording

RENDERER = Renderer()
VALUES = {"a": 1, "first name": "Ada", "size": "XL", "l": [{"a": {"b": 1}}], "t": True, "n": None, "s": " "}

NAMES = st.sampled_from([*VALUES, "missing"])
FIELDS = st.builds(
    "{}${{{}}}{}".format,
    st.sampled_from(["", "custom_attribute.", "event_properties.", "campaign.", "subscribed_state."]),
    NAMES,
    st.sampled_from(["", "[0].a.b", ".size", ".first"]),
)
SHAPES = st.sampled_from(
    [
        *(
            "{{{{{0}}}}}",
            "{{{{ {0} | default: {1} }}}}",
            "{{% if {{{{{0}}}}} == {1} %}}{{{{ {2} }}}}{{% endif %}}",
        ),
        *(
            "{{% if {0} %}}{{{{ {1} | append: {2} }}}}{{% endif %}}",
            "{{% assign x = {{{{{0}}}}} %}}{{{{ x }}}}",
        ),
        *("{{% for i in {0} %}}{{{{ i }}}}{{{{ {1} }}}}{{% endfor %}}", "{{% echo {0} | join: {1} %}}"),
        *("{{% case {0} %}}{{% when {1}, {2} %}}x{{% endcase %}}", "{{% raw %}}{{{{{0}}}}}{{% endraw %}}"),
        *(
            "{{% comment %}}{{{{{0}}}}}{{% endcomment %}}",
            "<!-- {{{{ {0} }}}} -->{{{{ {1} }}}}",
            "{{% # {0} %}}",
        ),
        *("<!-- {{% raw %}} --> {{{{ {0} }}}} <!-- {{% endraw %}} -->", "{{% liquid\necho {0}\n%}}"),
        *("{{% cycle {0}, {1} %}}", "{{% tablerow i in {0} cols:{1} %}}{{{{ {2} }}}}{{% endtablerow %}}"),
        *(
            "{{% for x in custom_attribute %}}{{{{ x }}}}{{% endfor %}}",
            "{{{{ [{0}] }}}}",
            "{{{{ x[{0}] }}}}",
        ),
        *(
            "{{% capture c %}}{{{{ {0} }}}}{{% endcapture %}}{{{{ c }}}}",
            "{{{{ campaign }}}}{{{{ profile.a }}}}",
        ),
    ]
)
TEMPLATES = st.lists(st.builds(str.format, SHAPES, FIELDS, FIELDS, FIELDS), min_size=1, max_size=4).map("".join)


def check(text: str, values: dict[str, object], *, html: bool) -> None:
    """Render with mappings that record, and compare."""
    profile, custom, properties, campaign, state = (Recording(values) for _ in range(5))
    context = RenderContext(profile, custom, properties, campaign, state, now_s=0)
    with suppress(RenderError, MessageAborted):
        RENDERER.compile(text, html=html).render(context)
    known = fields_read(text, html=html)
    named = {f"campaign.{name}" for name in campaign.asked} | {f"subscribed_state.{name}" for name in state.asked}

    assert profile.asked <= set(known.profile)
    assert custom.asked <= set(known.custom)
    assert properties.asked <= set(known.event_properties)
    assert named <= set(known.other)


@given(TEMPLATES, st.booleans())
def test_rendering_reads_nothing_else(text: str, html: bool) -> None:
    """Whatever rendering looks up in the user's data was named by `fields_read` beforehand."""
    check(text, dict(VALUES), html=html)


def test_golden_templates_read_nothing_else() -> None:
    """The same holds for every golden template."""
    for case in GOLDEN:
        check(case.template, dict(VALUES), html=case.html)


def test_recording_notices_what_is_read() -> None:
    """The recording mapping sees a read, so that the tests above can fail."""
    profile = Recording({"a": 1})
    RENDERER.compile("{{ ${a} }}{{ ${b} }}").render(RenderContext(profile=profile))

    assert {"a", "b"} == profile.asked


def test_every_form_is_found() -> None:
    """All forms of a field count, each name once and in order, with its namespace."""
    text = """
        Hi {{${last_name} | default: ${first_name}}} {{ ${nickname | default: 'x'} }} {{${first_name}}}
        {% if {{custom_attribute.${zip code}}} == 1 or custom_attribute.${o}[0].a.b %}{% endif %}
        {% assign x = event_properties.${songs}[0].album.name %}
        {% for i in event_properties.${items} %}{% endfor %} {{ campaign.${name} }} ${plain_text}
        {{ subscribed_state.${email_global} }} {% raw %}{{ ${raw} }}{% endraw %}
    """

    assert TemplateFields(
        profile=("first_name", "last_name", "nickname"),
        custom=("o", "zip code"),
        event_properties=("items", "songs"),
        other=("campaign.name", "subscribed_state.email_global"),
    ) == fields_read(text)


def test_html_comments_are_seen_as_the_renderer_sees_them() -> None:
    """With `html`, a `raw` inside comments hides nothing, and what a comment holds is not read."""
    text = "<!-- {% raw %} --> {{ ${a} }} <!-- {% endraw %}{{ ${b} }} -->"

    assert fields_read(text, html=True).profile == ("a",)
    assert fields_read(text).profile == ("b",)


def test_a_faulty_text_gives_what_came_before() -> None:
    """A text that is no template is no error here."""
    assert fields_read("{{ ${a} }} {{ ${b} ").profile == ("a",)


def test_fields_of_several_templates_join() -> None:
    """What a subject and a body read together is what either reads."""
    parts = [fields_read("{{${b}}}"), fields_read("{{${a}}} {{${b}}} {{custom_attribute.${c}}}")]

    assert TemplateFields(profile=("a", "b"), custom=("c",)) == fields_joined(parts)
