"""Run a module as a program on the compiled modules, where there are any of these sources.

`python -m tests.compiled.run tests.bench.subject '{"mode":"drain"}'`
"""

import runpy
import sys

from config.compiled import use_compiled


def main() -> None:
    """Say on stderr what the program runs on, then become it."""
    print(f"headrace: {use_compiled()}", file=sys.stderr)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
