"""Views of the target: in another order, or longer. What does not fit is one line before the first step."""

import pytest
import torch

from pitfalls.evaluation import decoding
from pitfalls.evaluation.score import evaluate, forced_entropy, read_answers
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from tests.longer_view import Twice


class Longer(Twice):
    """The length is not stated."""

    written_length = NextToken.written_length


class Shorter(NextToken):
    def view(self, batch):
        return batch._replace(target=batch.target[:, 1:])

    def written_length(self, target_length):
        return target_length - 1


class Endless(Twice):
    def written_length(self, target_length):
        return 3 * target_length + 9


class NotTurnedBack(NextToken):
    def view(self, batch):
        return batch._replace(target=batch.target.flip(1))


class OtherTokens(NextToken):
    """Node values are renamed: a round trip of tokens, but not of places."""

    def view(self, batch):
        return batch._replace(target=(batch.target + 1) % 10)

    def unview(self, tokens):
        return (tokens - 1) % 10


class ByRow(NextToken):
    """Rows with an even start are turned round: the places differ from row to row."""

    def view(self, batch):
        even = batch.target[:, :1] % 2 == 0
        return batch._replace(target=torch.where(even, batch.target.flip(1), batch.target))

    def unview(self, tokens):
        return tokens


class OtherPrompt(NextToken):
    def view(self, batch):
        return batch._replace(prompt=batch.prompt.flip(1))


class TooMany(Twice):
    def unview(self, tokens):
        return tokens


class NoBatch(NextToken):
    def view(self, batch):
        return batch.target


@pytest.fixture
def make(make_objective):
    """A function that makes an objective of a class."""

    def make(kind: type[NextToken]) -> NextToken:
        objective = make_objective("next_token")
        objective.__class__ = kind
        return objective

    return make


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Longer, r"Longer.view returns a target of shape \[8, 6\], not \[8, 4\]: keep L = 4, or return the new length from"),
        (Shorter, "Shorter.written_length=3: a view is no shorter than the path, L = 4"),
        (Endless, r"Endless.written_length=21: .* no longer than 3L\+8 = 20"),
        (NotTurnedBack, "NotTurnedBack.unview does not undo view: .* is viewed as"),
        (OtherTokens, r"OtherTokens.unview takes the columns \[9, 0, 1, 2\] of 4"),
        (ByRow, "ByRow.unview does not undo view: .*in the same way in every row"),
        (OtherPrompt, "OtherPrompt.view changes the prompt"),
        (TooMany, r"TooMany.unview takes the columns \[0, 1, 2, 3, 4, 5\] of 6: it must take 4,"),
        (NoBatch, "NoBatch.view returns Tensor, not a Batch"),
    ],
)
def test_a_view_that_does_not_fit_is_one_line(make, batch, kind, words):
    """Guards against a traceback at the first evaluation, and scores of tokens at the wrong places."""
    with pytest.raises(ConfigError, match=words) as caught:
        make(kind).check_view(batch)
    assert "\n" not in str(caught.value)


def test_views_that_fit_pass(make, make_objective, batch):
    for objective in (make(Twice), make_objective("reversed"), make_objective("next_token")):
        objective.check_view(batch)
    assert make(Twice).places(4) == (2, 3, 4, 5)
    assert make_objective("reversed").places(4) == (3, 2, 1, 0)


def test_a_longer_view_is_decoded_scored_and_read_as_the_path(make, make_oracle, task, batch):
    """Guards against a decoder that stops at L tokens, and readings of the tokens that are no part of the path."""
    objective = make(Twice)
    oracle = make_oracle(objective, batch)
    assert torch.equal(decoding.decode(oracle, objective, batch.prompt, 4), batch.target)
    found = evaluate(oracle, objective, task, batch)
    assert (found.exact_match.k, [count.k for count in found.forced_position_accuracy]) == (8, [8] * 4)
    assert forced_entropy(oracle, objective, batch).shape == batch.target.shape
    assert all(reading.p_answer == [1.0] * 4 for reading in read_answers(oracle, objective, batch, batch.target))


def test_a_longer_view_trains_every_token_of_it(make, trunk, batch):
    """Guards against a loss that forgets what the view adds."""
    objective = make(Twice)
    total = objective.training_loss(trunk, batch, step=0, generator=generator(0, "objective")).total
    viewed = objective.view(batch).target
    log_p = objective.forced_logits(trunk, objective.view(batch)).log_softmax(-1)
    torch.testing.assert_close(total, -log_p.gather(2, viewed[..., None]).mean())
