"""Packages that only some environments have.

Tests of trackers, of other runtimes and of searches use the real packages, which are large.
`tox -e ship` installs all of them: there a missing one fails. Elsewhere its tests are skipped, and
the reason says where they run.
"""

import importlib
import os

import pytest


def needs(name):
    """The module `name`, or a skip of the test that asks for it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if os.environ.get("MLSYSTEM_SHIP"):
            raise
        reason = f"{name} is not installed; `tox -e ship` runs this test"
        pytest.skip(reason, allow_module_level=True)


ship_only = pytest.mark.skipif(
    not os.environ.get("MLSYSTEM_SHIP"), reason="takes long; `tox -e ship` runs this test"
)
