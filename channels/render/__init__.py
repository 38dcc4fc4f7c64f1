"""How a message's templates become its text: Braze's Liquid, with limits and without side effects.

Compile once, render often:

    >>> subject = Renderer().compile("Hi {{ ${first_name} | default: 'there' }}", one_line=True)
    >>> subject.render(RenderContext(profile={"first_name": "Ada"}))
    'Hi Ada'
"""

from channels.render.engine import RenderContext, Rendered, Renderer, Template
from channels.render.errors import MessageAborted, RenderError, RenderFailure, RenderLimit, TemplateError

__all__ = [
    "MessageAborted",
    "RenderContext",
    "RenderError",
    "RenderFailure",
    "RenderLimit",
    "Rendered",
    "Renderer",
    "Template",
    "TemplateError",
]
