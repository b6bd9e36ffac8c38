"""The learning rate of every step, compared with tables written by hand."""

import itertools

import pytest

from pitfalls.experiment.hydra_app import compose
from pitfalls.training.schedule import lr_factor

TABLES = [
    pytest.param("constant", 0, None, 0.0, [1, 1, 1, 1], id="constant"),
    pytest.param("constant", 4, None, 0.0, [0.25, 0.5, 0.75, 1, 1, 1], id="constant-warmup"),
    pytest.param("linear", 0, None, 0.0, [0.75, 0.5, 0.25, 0], id="linear"),
    pytest.param("linear", 2, None, 0.2, [0.5, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], id="linear-warmup-floor"),
    pytest.param("linear", 2, 4, 0.2, [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2], id="linear-last-4-steps"),
    pytest.param("linear", 0, 1, 0.5, [1, 1, 0.5], id="linear-last-step"),
    pytest.param("cosine", 0, None, 0.0, [0.853553, 0.5, 0.146447, 0], id="cosine"),
    pytest.param("cosine", 2, None, 0.1, [0.5, 1, 0.868198, 0.55, 0.231802, 0.1], id="cosine-warmup-floor"),
    pytest.param("cosine", 1, 2, 0.0, [1, 1, 1, 0.5, 0], id="cosine-last-2-steps"),
    pytest.param("cosine", 3, None, 0.0, [1 / 3, 2 / 3, 1], id="warmup-only"),
]


def factors(schedule: str, warmup: int, decay: int | None, final: float, n_steps: int) -> list[float]:
    return [
        lr_factor(
            step,
            n_steps=n_steps,
            warmup_steps=warmup,
            schedule=schedule,
            decay_steps=decay,
            final_lr_fraction=final,
        )
        for step in range(n_steps)
    ]


@pytest.mark.parametrize(("schedule", "warmup", "decay", "final", "table"), TABLES)
def test_factors_are_those_of_the_table(schedule: str, warmup: int, decay: int | None, final: float, table: list):
    """Guards against off-by-one in warm-up and decay."""
    assert factors(schedule, warmup, decay, final, len(table)) == pytest.approx(table, abs=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("n_steps", [7, 600, 100_000])
@pytest.mark.parametrize("decay", [None, 5])
def test_the_last_step_reaches_the_final_fraction(schedule: str, n_steps: int, decay: int | None):
    """Guards against defect 1 of the official code: a cosine over samples, driven by steps, never bends."""
    found = factors(schedule, 2, decay, 0.1, n_steps)
    assert found[-1] == pytest.approx(0.1, abs=1e-9)
    assert found[1] == 1.0
    assert max(found) == 1.0
    after = found[1:]
    assert all(a >= b for a, b in itertools.pairwise(after)), "it must never rise again"


def test_the_official_preset_warms_up_one_step_ahead_of_the_published_code():
    """Guards against wrong words in the preset: the published rate is s/100 of the peak at step s, ours is that of step s + 1."""
    training = compose(["experiment=official"]).training
    found = factors(training.schedule, training.warmup_steps, training.decay_steps, training.final_lr_fraction, 200)
    assert found == pytest.approx([min(1.0, (step + 1) / 100) for step in range(200)])


def test_a_final_fraction_above_the_floor_is_not_a_floor_on_lr():
    """Guards against defect 2 of the official code: a fixed minimum that raises small learning rates. It is a fraction here."""
    assert factors("cosine", 0, None, 1.0, 5) == [1.0] * 5


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="schedule=cosin: choose one of constant, linear, cosine"):
        factors("cosin", 0, None, 0.0, 3)
