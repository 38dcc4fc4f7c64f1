"""The limits of rendering: with them a template needs no timer, because its work is bounded.

Exceeding one raises `RenderLimit` with the constant's name in lower case, without `_MAX`.
"""

from typing import Final

TEMPLATE_BYTES_MAX: Final = 256 * 1024
"""Source of one template, in UTF-8."""

OUTPUT_BYTES_MAX: Final = 1024 * 1024
"""Text that one render produces, in UTF-8."""

LOOP_ITERATIONS_MAX: Final = 10_000
"""Iterations of all loops of one render together, nested and consecutive ones alike."""

BLOCK_DEPTH_MAX: Final = 30
"""Blocks (`if`, `for`, …) inside each other."""

CONTEXT_DEPTH_MAX: Final = 30
"""Scopes of variables inside each other; loops open them."""

LOCAL_BYTES_MAX: Final = 1024 * 1024
"""What `assign`, `capture` and `cycle` hold at one time, by `sys.getsizeof` of each value."""

VALUE_CHARS_MAX: Final = 1024 * 1024
"""Text that one filter may produce."""

LIST_ITEMS_MAX: Final = 10_000
"""Items of a list that one filter may produce, and of a range `(1..n)`."""

NUMBER_BITS_MAX: Final = 1024
"""Size of an integer that a filter may produce."""

WORK_MAX: Final = 500_000
"""Steps of one render: each node, path and filter is one; so are 256 characters, or 8 items, in a filter."""

DATE_CHARS_MAX: Final = 128
"""Text that is tried as a date; a longer one is none, and the filter `date` returns it unchanged."""

DATE_FORMAT_CHARS_MAX: Final = 256
"""Format given to the filter `date`."""
