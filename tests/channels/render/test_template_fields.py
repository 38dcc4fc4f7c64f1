"""What a template reads is known before it is rendered."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.channel import Envelope, Skipped
from channels.registry import CHANNELS
from channels.render import MessageAborted, RenderContext, Renderer, RenderError
from streams.campaigns.template_fields import TemplateFields, fields_joined, fields_read
from streams.campaigns.trigger import Campaign, compile_campaign
from streams.definitions import CampaignDefinition, Trigger
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


COMMENTS = st.sampled_from(
    [
        *("", "<!-- {{{ old }}} -->", "<!-- {% comment %} -->", "<!-- {% raw %} -->", "<!-- {{ $5 }} -->"),
        "<!-- {% endcomment %} -->",
    ]
)


def compiles(text: str, *, html: bool = False) -> bool:
    """Whether it is a template."""
    try:
        RENDERER.compile(text, html=html)
    except RenderError:
        return False
    return True


FIELD_TEXTS = TEMPLATES.map(lambda text: text if compiles(text) else "x")
PAGES = st.builds("{}{}{}".format, COMMENTS, TEMPLATES, COMMENTS).map(
    lambda text: text if compiles(text, html=True) else "x"
)
EMAILS = st.fixed_dictionaries({"to": st.just("ann@example.com"), "subject": FIELD_TEXTS, "text": FIELD_TEXTS})
MESSAGES = st.one_of(
    st.builds(lambda email, page: ("email", {**email, "html": page}), EMAILS, PAGES),
    st.builds(lambda text: ("log", {"text": text}), FIELD_TEXTS),
    st.builds(
        lambda *texts: ("webhook", {"url": texts[0], "headers": {"A": texts[1], "B": texts[2]}, "body": texts[3]}),
        *[FIELD_TEXTS] * 4,
    ),
)


def check(text: str, values: dict[str, object], *, html: bool) -> None:
    """Render one template with mappings that record, and compare."""

    def render(context: RenderContext) -> None:
        RENDERER.compile(text, html=html).render(context)

    compare(render, values, fields_read(text, html=html))


def compare(render: Callable[[RenderContext], object], values: dict[str, object], known: TemplateFields) -> None:
    """Hold what rendering asks mappings that record for against what is known to be read."""
    profile, custom, properties, campaign, state = (Recording(values) for _ in range(5))
    with suppress(RenderError, MessageAborted):
        render(RenderContext(profile, custom, properties, campaign, state, now_s=0))
    named = {f"campaign.{name}" for name in campaign.asked} | {f"subscribed_state.{name}" for name in state.asked}

    assert profile.asked <= set(known.profile)
    assert custom.asked <= set(known.custom)
    assert properties.asked <= set(known.event_properties)
    assert named <= set(known.other)


@given(TEMPLATES, st.booleans())
def test_rendering_reads_nothing_else(text: str, html: bool) -> None:
    """Whatever rendering looks up in the user's data was named by `fields_read` beforehand."""
    check(text, dict(VALUES), html=html)


def campaign_of(channel: Literal["email", "log", "webhook"], message: dict[str, Any]) -> Campaign:
    """A campaign with this message."""
    return compile_campaign(CampaignDefinition("c", channel, Trigger(attribute_changed="x"), message=message))


@given(MESSAGES)
def test_rendering_a_message_reads_nothing_else(
    given_message: tuple[Literal["email", "log", "webhook"], dict[str, Any]],
) -> None:
    """Whatever rendering a whole message looks up was named by its campaign's `reads`, whichever template asks."""
    channel, fields = given_message
    campaign = campaign_of(channel, fields)
    render = CHANNELS[channel].compile(campaign.messages[""], RENDERER)
    envelope = Envelope("d", "c", 0, "https://localhost", None)
    with suppress(Skipped):
        compare(lambda context: render(envelope, context), dict(VALUES), campaign.reads)


@pytest.mark.parametrize(
    "comment",
    ["<!-- {{{ old }}} -->", "<!-- {% comment %} -->", "<!-- {% raw %} -->", "<!-- {{ $5 }} -->"],
)
def test_a_comment_in_a_page_hides_no_field(comment: str) -> None:
    """What stands behind an HTML comment, in the page and in the fields after it, is read; what is in it is not."""
    page = f"{comment}<p>Hi {{{{${{first_name}}}}}}, {{{{custom_attribute.${{plan}}}}}}</p>"
    message = {"to": "a@b.c", "subject": "x", "html": page, "reply_to": "{{custom_attribute.${seller}}}"}

    assert TemplateFields(("first_name",), ("plan", "seller")) == campaign_of("email", message).reads


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
