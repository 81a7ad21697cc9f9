"""The tests of this directory run where today's engines are installed: `make test-engines`."""

from __future__ import annotations

import os

if "PUBLISHER_TEST_ENGINES" not in os.environ:
    collect_ignore_glob = ["test_*.py"]
