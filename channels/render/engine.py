"""Templates: compiled once, rendered for each message, always within the limits."""

import re
from collections.abc import Mapping
from typing import Final, NewType

import msgspec
from liquid import BoundTemplate, Environment, Mode
from liquid.ast import Node
from liquid.exceptions import (
    BlockNestingError,
    ContextDepthError,
    LiquidError,
    LiquidInterrupt,
)

from channels.render.errors import RenderFailure, RenderLimit, TemplateError
from channels.render.filter_table import UNFIT, Filter, filter_table
from channels.render.limits import BLOCK_DEPTH_MAX, CONTEXT_DEPTH_MAX, TEMPLATE_BYTES_MAX
from channels.render.plain import plain_of
from channels.render.scope import Output, Scope
from channels.render.syntax import Translation, root, translate
from channels.render.tags import use_tags
from channels.render.tree import correct
from streams.events import JSONValue

Rendered = NewType("Rendered", str)
"""A text that came out of a template, ready to be sent."""

_LINE_ENDS: Final = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


class RenderContext(msgspec.Struct, frozen=True):
    """The data of one message; every mapping may be partial, and a name that is not there is missing.

    `profile` has the keys of Braze's tags: first_name, email_address, user_id, time_zone, …
    `campaign` holds api_id, dispatch_id, name, message_name, …; `subscribed_state` holds `email_global`
    and the state of subscription groups by id; `other` any further namespace by its name, such as
    `canvas`. `now_s` is what `'now'` means, in seconds since 1970: it is given, never read from a clock,
    so that a message can be rendered again to the same bytes.
    """

    profile: Mapping[str, JSONValue] = {}
    custom: Mapping[str, JSONValue] = {}
    event_properties: Mapping[str, JSONValue] = {}
    campaign: Mapping[str, str] = {}
    subscribed_state: Mapping[str, JSONValue] = {}
    other: Mapping[str, Mapping[str, JSONValue]] = {}
    now_s: float | None = None


class Template:
    """A compiled template; it holds no state between renders, and threads may share it."""

    __slots__ = ("_bound", "_one_line", "_plain", "_translation")

    def __init__(self, bound: BoundTemplate, translation: Translation, *, one_line: bool) -> None:
        self._bound = bound
        self._plain = plain_of(bound.nodes)
        self._translation = translation
        self._one_line = one_line

    def render(self, context: RenderContext) -> Rendered:
        """Return the text for one message; the same context always gives the same text.

        Raises:
            MessageAborted: the template called `abort_message`; nothing is to be sent.
            RenderFailure: the data does not fit, such as a number compared with a word; says where.
            RenderLimit: a limit of `channels.render.limits` was exceeded.
        """
        names = _names(context)
        text = None if self._plain is None else self._plain.render(names)
        if text is None:
            text = self._render_nodes(Scope(self._bound, names, context.now_s))
        return Rendered(_LINE_ENDS.sub(" ", text).strip() if self._one_line else text)

    def _render_nodes(self, scope: Scope) -> str:
        output = Output()
        try:
            for node in self._bound.nodes:
                self._render_node(node, scope, output)
        except LiquidInterrupt:
            pass  # `break` outside any loop ends the text, as in Liquid
        return output.getvalue()

    def _render_node(self, node: Node, scope: Scope, output: Output) -> None:
        """Render one node, turning whatever its data may cause into an error of the tree, with a place.

        `from None`: the causes may quote the user's data, and tracebacks end up in logs.
        """
        try:
            node.render(scope, output)
        except ContextDepthError as error:
            raise RenderLimit("context_depth", CONTEXT_DEPTH_MAX) from error
        except LiquidError as error:
            raise self._failure(str(error.message), error, node) from None
        except RecursionError as error:
            raise self._failure("nested too deeply", error, node) from None
        except UNFIT as error:
            message = f"this value cannot be used here ({type(error).__name__})"
            raise self._failure(message, error, node) from None

    def _failure(self, message: str, error: Exception, node: Node) -> RenderFailure:
        token = getattr(error, "token", None)
        token = node.token if token is None or token.start_index < 0 else token
        start, end = self._translation.origin(token.start_index, token.start_index + len(token.value))
        return RenderFailure(message, self._translation.source, start, end)


class _Environment(Environment):
    """Liquid with our limits; those that python-liquid counts otherwise are counted by `Scope`."""

    block_nesting_limit = BLOCK_DEPTH_MAX
    context_depth_limit = CONTEXT_DEPTH_MAX
    filters: dict[str, Filter]  # type: ignore[assignment]


class Renderer:
    """Compiles templates; one serves a whole process, and nothing in it changes after it is made."""

    def __init__(self) -> None:
        self._env = _Environment(tolerance=Mode.STRICT, strict_filters=True, autoescape=False)
        self._filters = filter_table(self._env)
        self._env.filters = dict(self._filters)
        use_tags(self._env)

    def compile(self, text: str, *, html: bool = False, one_line: bool = False) -> Template:
        """Return a template to be kept and rendered often; compiling costs about a millisecond.

        Args:
            text: Braze's Liquid.
            html: remove HTML comments, and the Liquid in them, first; Outlook's conditional comments
                stay. Values are NOT escaped, as they are not in Braze: whoever prints what a user may
                have typed into HTML writes `{{ ${first_name} | escape }}`.
            one_line: for header fields such as `to` and `subject`: line ends of the output become one
                space each run, so that no value can begin another header; outer white space is cut.

        Raises:
            TemplateError: the template is wrong, or uses what is unknown or not supported yet; says where.
            RenderLimit: it is longer than 256 KiB (`template_bytes`) or nested too deeply (`block_depth`).
        """
        # Characters first: encoding what is far too long anyway would only cost memory.
        if len(text) > TEMPLATE_BYTES_MAX or len(text.encode("utf-8", "replace")) > TEMPLATE_BYTES_MAX:
            raise RenderLimit("template_bytes", TEMPLATE_BYTES_MAX)
        translation = translate(text, html=html)
        try:
            bound = self._env.from_string(translation.text)
            correct(bound.nodes, self._filters)
        except BlockNestingError as error:
            raise RenderLimit("block_depth", BLOCK_DEPTH_MAX) from error
        except LiquidError as error:
            raise _template_error(error, translation) from error
        except RecursionError as error:
            raise TemplateError("nested too deeply", text, 0, 1) from error
        return Template(bound, translation, one_line=one_line)


def _template_error(error: LiquidError, translation: Translation) -> TemplateError:
    """Return an error of python-liquid as ours, under the original text."""
    message = "nested too deeply" if isinstance(error.__cause__, RecursionError) else str(error.message)
    start, end = 0, 1
    if error.token is not None and error.token.start_index >= 0:
        begin = error.token.start_index
        start, end = translation.origin(begin, begin + len(error.token.value))
    return TemplateError(message, translation.source, start, end)


def _names(context: RenderContext) -> dict[str, object]:
    """Return the namespaces under the names that `translate` reads them by."""
    names: dict[str, object] = {root(name): value for name, value in context.other.items()}
    names[_PROFILE] = context.profile
    names[_CUSTOM] = context.custom
    names[_EVENT_PROPERTIES] = context.event_properties
    names[_CAMPAIGN] = context.campaign
    names[_SUBSCRIBED_STATE] = context.subscribed_state
    return names


_PROFILE: Final = root("")
_CUSTOM: Final = root("custom_attribute")
_EVENT_PROPERTIES: Final = root("event_properties")
_CAMPAIGN: Final = root("campaign")
_SUBSCRIBED_STATE: Final = root("subscribed_state")
