"""The measurements of ``scripts/benchmark.py``. This folder is not part of the installed package."""
