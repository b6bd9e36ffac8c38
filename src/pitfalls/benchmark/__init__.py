"""What `scripts/benchmark.py` times: whole training steps, their parts, decoding and data, beside plain transformers."""
