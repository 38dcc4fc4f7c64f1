"""A plugin of pytest that runs tests on the compiled modules: `pytest -p tests.compiled.plugin tests/streams`."""

import pytest

from config.compiled import use_compiled

if use_compiled() != "compiled":
    pytest.exit("no compiled modules of these sources; run `make fast`", returncode=1)
