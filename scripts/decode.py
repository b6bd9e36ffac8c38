"""Answer a finished run's test graphs by every decoding strategy.

    python scripts/decode.py runs/RUN --graphs 2000
    python scripts/decode.py runs/RUN --assistant runs/OTHER

Prints one line per strategy: graphs solved with a 95 % interval, the score of a model that guesses the arm, sequences read per
graph, and graphs per second. The strategies are the objective's own procedures, and several samples with a verifier. An
objective that answers from next-token logits also gets transformers' decoding rules: sampling, penalties, beams.
"""

import json
from pathlib import Path

import msgspec

from pitfalls.experiment.cli import Parser, console, exit_on_error, n_test_graphs, terminal_table
from pitfalls.experiment.config import load_config


def main() -> None:
    """Parse, decode, print."""
    parser = Parser(__doc__)
    parser.add_run()
    parser.add_test_graphs()
    parser.add_seed()
    drafts = "another run of the same task; its model drafts tokens, and this one's verifies them"
    parser.add_argument("--assistant", type=Path, metavar="RUN", help=drafts)
    parser.add_threads()
    parser.add_json()
    args = parser.parse_args()
    from pitfalls.evaluation.strategies import strategy_table
    from pitfalls.experiment.evaluate_run import decode_run
    from pitfalls.training.device import prepare_process

    n_graphs = n_test_graphs(args.graphs, load_config(args.run).task.test_graphs)
    prepare_process(args.threads)
    scores = decode_run(args.run, n_graphs, args.seed, args.assistant)
    if args.json:
        print(json.dumps({"run": args.run.name, "graphs": n_graphs, "strategies": msgspec.to_builtins(scores)}))
    else:
        table = strategy_table(scores, f"{args.run.name}\n{n_graphs:,} test graphs")
        console().print(terminal_table(table))


if __name__ == "__main__":
    exit_on_error(main)
