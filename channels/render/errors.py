"""What can go wrong between a template and a message, one tree.

    RenderError
    ├── TemplateError     the template is wrong, whoever it is for: found when it is compiled
    ├── RenderFailure     the template does not fit the data of this one message
    └── RenderLimit       a limit was exceeded, when compiling or when rendering
    MessageAborted        no error: the template itself decided that nothing is to be sent

`MessageAborted` stands outside the tree, so that `except RenderError` never swallows that decision.
No text in here holds data of a user; `TemplateError` and `RenderFailure` quote the template.
"""

from typing import Final

EXCERPT_CHARS: Final = 100
"""What is shown of a long line, such as one of minified HTML."""


class RenderError(Exception):
    """The base of everything that keeps a message from being rendered."""


class _Placed(RenderError):
    """An error at a place in a template.

    Attributes:
        message: what is wrong, in one line.
        line: from 1.
        column: from 1, in characters.
    """

    def __init__(self, message: str, source: str, start: int, end: int) -> None:
        """Point at `source[start:end]`; the text of the error shows the line, with carets under it."""
        start = min(max(start, 0), len(source))
        before = source.rfind("\n", 0, start) + 1
        after = source.find("\n", start)
        line_end = after if after >= 0 else len(source)
        self.message = message
        self.line = source.count("\n", 0, start) + 1
        self.column = start - before + 1
        is_short = line_end - before <= EXCERPT_CHARS
        left = before if is_short else max(before, start - EXCERPT_CHARS // 2)
        shown = source[left : min(line_end, left + EXCERPT_CHARS)].replace("\t", " ").rstrip("\r")
        carets = "^" * max(1, min(end, line_end, left + EXCERPT_CHARS) - start)
        margin = " " * len(str(self.line))
        super().__init__(
            f"line {self.line}, column {self.column}: {message}\n"
            f"{self.line} | {shown}\n"
            f"{margin} | {' ' * (start - left)}{carets}"
        )


class TemplateError(_Placed):
    """A template that cannot be used: syntax, an unknown tag or filter, one not supported yet."""


class RenderFailure(_Placed):
    """A message that cannot be rendered from its data, such as a number compared with a word."""


class RenderLimit(RenderError):
    """A limit was exceeded.

    Attributes:
        limit: its name, a constant of `channels.render.limits` in lower case without `_max`.
        value: what it allows.
    """

    def __init__(self, limit: str, value: int) -> None:
        """Name the limit and what it allows."""
        super().__init__(limit, value)
        self.limit = limit
        self.value = value

    def __str__(self) -> str:
        return f"the template exceeds the limit {self.limit} of {self.value:,}"


class MessageAborted(Exception):
    """The template called `abort_message`: nothing may be sent, and this is not a failure.

    Attributes:
        reason: the text given to `abort_message`, or Braze's own where none was given.
    """

    def __init__(self, reason: str) -> None:
        """Keep the reason for the log of messages."""
        super().__init__(reason)
        self.reason = reason
