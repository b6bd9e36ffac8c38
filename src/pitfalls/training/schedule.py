"""Learning-rate schedules as pure functions of the step."""

import math


def lr_factor(
    step: int, *, n_steps: int, warmup_steps: int, schedule: str, decay_steps: int | None, final_lr_fraction: float
) -> float:
    """The learning rate of a step as a fraction of its peak.

    Linear warm-up from 1/warmup_steps at step 0 to 1 at step warmup_steps - 1, then the peak, then a decay over the
    last ``decay_steps`` steps which reaches ``final_lr_fraction`` at step n_steps - 1.

    Args:
        step: optimizer steps taken so far, 0-based.
        n_steps: optimizer steps of the run (steps, not samples: the published code's cosine is given samples and so
            never bends).
        warmup_steps: steps of warm-up.
        schedule: "constant", "linear" or "cosine".
        decay_steps: steps of the decay; None is all that follow the warm-up.
        final_lr_fraction: where a decay ends.

    Raises:
        ValueError: an unknown schedule.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    decay = n_steps - warmup_steps if decay_steps is None else decay_steps
    progress = min(1.0, max(0.0, (step + 1 - (n_steps - decay)) / decay))
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1.0 - (1.0 - final_lr_fraction) * progress
    if schedule == "cosine":
        return final_lr_fraction + (1.0 - final_lr_fraction) * 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"schedule={schedule}: choose one of constant, linear, cosine")
