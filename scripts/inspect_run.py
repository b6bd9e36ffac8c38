"""Show the answers of a run: graphs, answers token by token, probabilities and entropies.

    python scripts/inspect_run.py runs/RUN --graphs 3
    python scripts/inspect_run.py runs/RUN --graphs 3 --data FILE

Right tokens are green, wrong ones red. A cheat is easy to see: it is undecided at the first hop and certain everywhere else.
"""

import json

import msgspec

from pitfalls.experiment import answer_tables
from pitfalls.experiment.cli import Parser, console, existing_file, exit_on_error


def main() -> None:
    """Parse, answer, print."""
    parser = Parser(__doc__)
    parser.add_run()
    parser.add_graphs(3)
    parser.add_seed()
    parser.add_data()
    parser.add_threads()
    parser.add_json()
    args = parser.parse_args()
    if args.data is not None:
        existing_file(args.data, "give a file of graphs, such as scripts/make_data.py writes", "--data")
    from pitfalls.experiment.build import load_run
    from pitfalls.experiment.evaluate_run import answers, graphs_for
    from pitfalls.training.device import prepare_process

    prepare_process(args.threads)
    run = load_run(args.run)
    examples = answers(run, graphs_for(run, args.graphs, seed=args.seed, data=args.data))
    if args.json:
        print(json.dumps({"run": args.run.name, "answers": msgspec.to_builtins(examples)}))
        return
    for i, example in enumerate(examples):
        console().print(*answer_tables.example_blocks(i, example), sep="\n")


if __name__ == "__main__":
    exit_on_error(main)
