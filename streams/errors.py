"""The errors of Headrace, one tree.

HeadraceError
├── BadInput            a record cannot be used: it goes to dead-letters, the stream goes on
├── BadDefinition       a workspace file cannot be used: it is refused before anything runs
├── BadSetting          an environment variable or a command's argument cannot be used
├── OutsideFailing      a provider or a disk refuses for now: retried by a durable timer
└── BadState            our own data contradicts itself: the worker stops
"""


class HeadraceError(Exception):
    """The base of every error that Headrace raises on purpose."""


class BadInput(HeadraceError):
    """A record from outside that cannot be applied.

    Attributes:
        reason: a stable slug such as `wrong_type`, for counting and searching.
        field: the path of the offending field, empty where the whole record is meant.
        detail: a sentence that names the value and the fix.
    """

    def __init__(self, reason: str, field: str, detail: str) -> None:
        """Keep the three parts; the text of the error joins them."""
        super().__init__(f"{reason}: {field}: {detail}" if field else f"{reason}: {detail}")
        self.reason = reason
        self.field = field
        self.detail = detail


class BadDefinition(HeadraceError):
    """A segment, campaign or workspace that cannot be used; the text names file, key and fix."""


class BadSetting(HeadraceError):
    """A setting or a command's argument that cannot be used; the text names it and the fix."""


class Revoked(HeadraceError):
    """A partition went to another worker, so what was handed in for it cannot be committed here any more."""


class OutsideFailing(HeadraceError):
    """Something outside the process refuses for now."""


class BadState(HeadraceError):
    """Our own stored data contradicts itself; continuing would make it worse."""
