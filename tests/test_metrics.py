"""Metrics on tensors small enough to read."""

import math

import pytest
import torch

from pitfalls import metrics

TARGET = torch.tensor([[1, 2, 3], [4, 5, 6]])
ANSWER = torch.tensor([[1, 2, 3], [4, 6, 6]])


def test_correct_tokens():
    assert metrics.correct(ANSWER, TARGET).tolist() == [[True, True, True], [True, False, True]]


def test_exact_matches_are_rows_with_every_token_right():
    """Guards against token accuracy in exact match's place."""
    assert metrics.n_exact(metrics.correct(ANSWER, TARGET)) == 1
    assert metrics.n_exact(metrics.correct(TARGET, TARGET)) == 2
    assert metrics.n_exact(metrics.correct(TARGET + 1, TARGET)) == 0


def test_counts_per_position_are_separate():
    """Guards against defect 7 of the official code: every position's meter was given the whole vector."""
    counts = metrics.n_per_position(metrics.correct(ANSWER, TARGET))
    assert counts == [2, 1, 2]
    assert all(type(count) is int for count in counts)


def test_negative_log_likelihood_is_in_nats_per_token():
    p = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]]])
    nll = metrics.negative_log_likelihood(p.log() + 7.0, torch.tensor([[0, 2, 1]]))
    assert nll[0].tolist() == pytest.approx([math.log(2), -math.log(0.8), math.log(3)], rel=1e-5)


def test_entropy_is_in_nats_per_token():
    """The entropy of a cheat is ln d at the first hop and 0 after it."""
    logits = torch.tensor([[[5.0, 5.0, -1e4], [100.0, 0.0, 0.0], [2.0, 2.0, 2.0]]])
    assert metrics.entropy(logits)[0].tolist() == pytest.approx([math.log(2), 0.0, math.log(3)], abs=1e-5)


def test_bf16_logits_are_summed_in_fp32():
    logits = torch.zeros(1, 1, 4096, dtype=torch.bfloat16)
    assert metrics.entropy(logits).item() == pytest.approx(math.log(4096), rel=1e-5)
    assert metrics.negative_log_likelihood(logits, torch.tensor([[0]])).dtype == torch.float32
