"""A field of a message: its template compiled, or its text where it holds no Liquid."""

from collections.abc import Callable

from channels.render.engine import RenderContext, Renderer


def compile_field(
    renderer: Renderer, template: str, *, one_line: bool = True, html: bool = False
) -> Callable[[RenderContext], str]:
    """How a field is rendered; one without Liquid is rendered once, now. Raises RenderError, like `compile`."""
    compiled = renderer.compile(template, one_line=one_line, html=html)
    if "{" in template:
        return compiled.render
    constant = compiled.render(RenderContext())
    return lambda context: constant
