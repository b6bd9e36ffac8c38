"""Score a finished run on new graphs, or on a file of the authors' format.

    python scripts/evaluate.py runs/RUN --graphs 20000 --seed 1
    python scripts/evaluate.py runs/RUN --data deg_2_path_5_nodes_50_test_20000.txt

Prints counts with 95 % Wilson intervals. New graphs do not occur in a fixed training set. Without --graphs, all graphs of
the file are read. Nothing is trained or changed.
"""

import json
import time

import msgspec

from pitfalls.experiment import answer_tables
from pitfalls.experiment.cli import Parser, console, existing_file, exit_on_error, terminal_table
from pitfalls.runs.records import Score
from pitfalls.schemas import check_choice


def main() -> None:
    """Parse, score, print."""
    parser = Parser(__doc__)
    parser.add_run()
    parser.add_graphs(None)
    parser.add_seed()
    parser.add_data()
    parser.add_argument("--decoder", metavar="NAME", help="a decoding procedure of the objective (default: its own inference)")
    parser.add_threads()
    parser.add_json()
    args = parser.parse_args()
    if args.data is not None:
        existing_file(args.data, "give a file of graphs, such as scripts/make_data.py writes", "--data")
    from pitfalls.experiment.build import load_run
    from pitfalls.experiment.evaluate_run import graphs_for, score
    from pitfalls.training.device import prepare_process

    prepare_process(args.threads)
    run = load_run(args.run)
    if args.decoder is not None:
        check_choice("--decoder", args.decoder, run.objective.decoders)
    graphs = graphs_for(run, args.graphs, seed=args.seed, data=args.data)
    started = time.monotonic()
    evaluation = score(run, graphs, args.decoder)
    seconds = time.monotonic() - started
    if args.json:
        score_of_run = Score(args.run.name, args.data.name if args.data else None, round(seconds, 2), evaluation)
        print(json.dumps(msgspec.to_builtins(score_of_run)))
    else:
        source = f"graphs of {args.data.name}" if args.data else "new graphs"
        title = f"{args.run.name}\n{evaluation.first_hop.n:,} {source} ({seconds:.0f} s)"
        console().print(terminal_table(answer_tables.score_table(evaluation, title)))


if __name__ == "__main__":
    exit_on_error(main)
