r"""Write a dataset of path-star graphs, as the authors' text lines, JSON lines or Parquet, with its SHA-256 beside it.

    python scripts/make_data.py --degree 2 --path-length 5 --n-values 50 --graphs 20000 --seed 0 --output g2_5.txt
    python scripts/make_data.py --degree 5 --path-length 5 --n-values 50 --graphs 1000000 --seed 1 \
        --targets-per-graph 5 --format parquet --output g5_5.parquet
    sha256sum --check g2_5.txt.sha256

A row is one graph with one goal. JSON lines and Parquet have the columns edges [[parent, child], ...], start, goal and path. A
name that ends in .gz packs the text. The same arguments give the same bytes (with the same pyarrow or zlib). Graphs are drawn
independently, so in a small task some occur twice. No training run draws from the same random stream. A stopped command leaves no
dataset.
"""

from pathlib import Path

from pitfalls.experiment.cli import Parser, exit_on_error, integer, writable_folder

MAX_N_VALUES = 10_000
"""Largest accepted --n-values. One graph takes memory proportional to it."""


def main() -> None:
    """Parse, draw, write."""
    args = parser().parse_args()
    writable_folder(args.output.parent, "--output")
    from pitfalls.experiment.progress import progress
    from pitfalls.tasks.dataset_files import write_dataset
    from pitfalls.tasks.path_star import PathStar

    task, targets = PathStar(args.degree, args.path_length, args.n_values), args.targets_per_graph
    options = {"seed": args.seed, "targets_per_graph": targets, "file_format": args.format, "replace": args.force}
    with progress(f"writes {args.output.name}") as tell:
        write_dataset(args.output, task, args.graphs, tell=tell, **options)


def parser() -> Parser:
    """Return the parser of the command line."""
    made = Parser(__doc__)
    for name, low, text in (
        ("--degree", 1, "number of arms d"),
        ("--path-length", 2, "number of nodes l of an arm, the start included"),
        ("--n-values", 2, "number of node values N, at least 1 + d(l-1)"),
    ):
        made.add_argument(name, metavar="N", type=integer(low, MAX_N_VALUES), required=True, help=text)
    made.add_graphs(None, required=True)
    made.add_seed()
    text = "rows per graph, which differ in the goal (default: 1)"
    made.add_argument("--targets-per-graph", metavar="N", type=integer(1, MAX_N_VALUES), default=1, help=text)
    made.add_argument("--format", choices=("official", "jsonl", "parquet"), default="official", help="default: official")
    made.add_argument("--output", metavar="FILE", type=Path, required=True, help="its checksum goes to FILE.sha256")
    made.add_argument("--force", action="store_true", help="replace existing files")
    return made


if __name__ == "__main__":
    exit_on_error(main)
