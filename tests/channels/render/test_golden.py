"""Every template of golden.json becomes exactly what the file says."""

import pytest

from channels.render import MessageAborted, RenderContext, Renderer, RenderFailure, TemplateError
from tests.channels.render.samples import GOLDEN, Golden

RENDERER = Renderer()


def render(case: Golden) -> str:
    """Compile and render a case."""
    return RENDERER.compile(case.template, html=case.html, one_line=case.one_line).render(case.context)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_golden(case: Golden) -> None:
    """A template gives its text, its abort, or its error at its place."""
    if case.text is not None:
        assert case.text == render(case)
    elif case.aborted is not None:
        with pytest.raises(MessageAborted) as aborted:
            render(case)
        assert case.aborted == aborted.value.reason
    else:
        with pytest.raises((TemplateError, RenderFailure)) as failed:
            render(case)
        assert (case.error, case.at) == (failed.value.message, (failed.value.line, failed.value.column))


def test_names_of_cases_are_unique() -> None:
    """No two golden cases share a name, so that a failure names one of them."""
    assert len(GOLDEN) == len({case.name for case in GOLDEN})


def test_templates_are_reusable() -> None:
    """A template rendered for one user leaves nothing behind for the next."""
    template = RENDERER.compile("{% assign x = ${first_name} | default: x %}{{x}}{% increment n %}{{ n }}")
    first = template.render(RenderContext(profile={"first_name": "Ada"}))

    assert (first, template.render(RenderContext())) == ("Ada01", "01")
