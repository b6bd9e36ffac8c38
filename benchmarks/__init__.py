"""The measurements of ``scripts/benchmark.py``. This folder is not part of the installed package."""

import time

STARTED = time.perf_counter()
"""When the measurements began, before torch is imported."""
