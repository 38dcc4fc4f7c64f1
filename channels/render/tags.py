"""The tags that Braze adds to Liquid, and how every tag prints, fails and is found wanting."""

import re
from typing import Final, TextIO, cast

from liquid import Environment
from liquid import RenderContext as LiquidContext
from liquid.ast import Node
from liquid.builtin.illegal import Illegal
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.echo_tag import EchoTag
from liquid.exceptions import LiquidError, LiquidSyntaxError
from liquid.stream import TokenStream
from liquid.tag import Tag
from liquid.token import TOKEN_EXPRESSION, TOKEN_ILLEGAL, TOKEN_TAG, Token

from channels.render.errors import MessageAborted
from channels.render.filter_table import CHARS_PER_STEP
from channels.render.scope import Scope
from channels.render.values import to_text

ABORTED_WITHOUT_REASON: Final = "{% abort_message() %} called"
"""The reason of an `abort_message` that gives none."""

NOT_SUPPORTED_YET: Final = (
    *("catalog_items", "catalog_selection_items", "connected_content", "endtranslation", "landing_page_url"),
    *("message_extras", "promotion", "random", "shopping_cart", "translation"),
)
"""Tags that Braze has and we have not built."""

_REMOVED: Final = ("include", "render")  # they would load other templates, from disk for example
_REASON: Final = re.compile(r"""\(\s*(?:"([^"]*)"|'([^']*)')?\s*\)""")


def use_tags(env: Environment) -> None:
    """Replace the tags of an environment by ours: Braze's, without any that loads another template."""
    for name in _REMOVED:
        del env.tags[name]
    for tag in (PrintTag, PrintEchoTag, UnknownTag, AbortMessageTag):
        env.add_tag(tag)
    for name in NOT_SUPPORTED_YET:
        env.tags[name] = NotSupportedYetTag(env, name)
    env.tags.update({name: LocatedTag(tag) for name, tag in env.tags.items()})


class PrintNode(OutputNode):
    """`{{ … }}`: prints a value as Liquid does, where python-liquid would print Python."""

    __slots__ = ()

    def render_to_output(self, context: LiquidContext, buffer: TextIO) -> int:
        """Print the value; a long text counts as work."""
        text = to_text(self.expression.evaluate(context))
        cast("Scope", context).charge(len(text) // CHARS_PER_STEP)
        return buffer.write(text)


class PrintTag(Output):
    """`{{ … }}`."""

    node_class = PrintNode


class PrintEchoTag(EchoTag):
    """`{% echo … %}`, which prints like `{{ … }}`."""

    node_class = PrintNode  # type: ignore[assignment]


class AbortNode(Node):
    """`{% abort_message('reason') %}`: ends the render wherever it stands."""

    __slots__ = ("reason",)

    def __init__(self, token: Token, reason: str) -> None:
        super().__init__(token)
        self.reason = reason

    def render_to_output(self, context: LiquidContext, buffer: TextIO) -> int:
        """Raise MessageAborted with the reason."""
        raise MessageAborted(self.reason)


class AbortMessageTag(Tag):
    """`{% abort_message %}` with nothing, `()` or one quoted text, which is taken literally."""

    name = "abort_message"
    block = False

    def parse(self, stream: TokenStream) -> Node:
        """Return the node; leaves the stream at the last token of the tag."""
        token = stream.expect(TOKEN_TAG)
        if stream.peek.kind != TOKEN_EXPRESSION:
            return AbortNode(token, ABORTED_WITHOUT_REASON)
        next(stream)
        found = _REASON.fullmatch(stream.current.value)
        if not found:
            raise LiquidSyntaxError(
                "abort_message takes one text in straight quotes: {% abort_message('reason') %}",
                token=stream.current,
            )
        return AbortNode(token, found[1] or found[2] or ABORTED_WITHOUT_REASON)


class NotSupportedYetTag(Tag):
    """A tag of Braze's that refuses to be compiled."""

    block = False

    def __init__(self, env: Environment, name: str) -> None:
        super().__init__(env)
        self.name = name

    def parse(self, stream: TokenStream) -> Node:
        """Raise an error that names the tag."""
        raise LiquidSyntaxError(f"not supported yet: {self.name}", token=stream.current)


class UnknownTag(Illegal):
    """Whatever no tag is called."""

    name = TOKEN_ILLEGAL

    def parse(self, stream: TokenStream) -> Node:  # type: ignore[override]
        """Raise an error that names the tag."""
        raise LiquidSyntaxError(f"unknown tag '{stream.current.value}'", token=stream.current)


class LocatedTag(Tag):
    """Another tag, whose errors all have a place: its own where python-liquid gives none."""

    def __init__(self, tag: Tag) -> None:
        super().__init__(tag.env)
        self.tag, self.name, self.block, self.end = tag, tag.name, tag.block, tag.end

    def parse(self, stream: TokenStream) -> Node:
        """Return the node of the tag; raises what it raises, with a place."""
        token = stream.current
        try:
            return self.tag.parse(stream)
        except LiquidError as error:
            if error.token is None or error.token.start_index < 0:
                error.token = token
            raise
