"""The path-star task: graphs, their tokens, the authors' text format, and streams of batches."""
