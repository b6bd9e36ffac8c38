"""An objective that writes more tokens than the path, for tests."""

import torch

from pitfalls.objectives.next_token import NextToken


class Twice(NextToken):
    """Goal and first hop are written before the path."""

    def view(self, batch):
        return batch._replace(target=torch.cat([batch.target[:, [-1, 1]], batch.target], 1))

    def unview(self, tokens):
        return tokens[:, 2:]

    def written_length(self, target_length):
        return target_length + 2
