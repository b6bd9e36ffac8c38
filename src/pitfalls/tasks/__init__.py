"""The path-star task: its graphs and their tokens, the authors' text format, and streams of batches."""
