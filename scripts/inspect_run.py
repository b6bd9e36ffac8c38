"""Show what a run answers: graphs, answers token by token, probabilities and entropies, in the terminal.

    python scripts/inspect_run.py runs/RUN --graphs 3
    python scripts/inspect_run.py runs/RUN --data FILE --graphs 3

Right tokens are green, wrong ones red. A cheat shows as an even split at the first hop and certainty everywhere else.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pitfalls.experiment.cli import exit_on_error
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:
    from pitfalls.experiment.build import Run
    from pitfalls.runs.records import Example
    from pitfalls.tasks.batch import Batch


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="the folder of a run, with a checkpoint")
    parser.add_argument("--graphs", type=int, default=3, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of fresh graphs")
    parser.add_argument("--data", type=Path, help="take the first graphs of a file of the authors' format instead")
    return parser.parse_args()


def main() -> None:
    """Load, answer, print."""
    args = arguments()
    if args.graphs < 1:
        raise ConfigError(f"--graphs {args.graphs}: at least 1")
    from pitfalls.experiment.build import load_run
    from pitfalls.seeding import generator

    run = load_run(args.run_dir)
    if args.data:
        from pitfalls.tasks.official_format import read_batches

        batch = next(read_batches(args.data, run.task.n_values)).rows(0, args.graphs)
    else:
        batch = run.task.sample(args.graphs, generator(args.seed, "probe"))
    console = Console()
    for block in show(run, batch.to(run.config.training.device)):
        console.print(block)


def show(run: "Run", batch: "Batch") -> list[Text | Table]:
    """One block per graph: its edges and question, then the answer token by token."""
    from pitfalls.evaluation.score import examples
    from pitfalls.experiment.build import autocast

    blocks: list[Text | Table] = []
    with autocast(run.config):
        shown = examples(run.trunk, run.objective, run.task, batch)
    for i, example in enumerate(shown):
        edges = "  ".join(f"{a}→{b}" for a, b in example.edges)
        blocks.append(Text(f"\ngraph {i}: {edges}\nfrom {example.start} to {example.goal}", "bold"))
        blocks.append(_tokens(example))
    return blocks


def _tokens(example: "Example") -> Table:
    outcome = example.outcome
    table = Table(title=f"answer: {outcome.replace('_', ' ')}" if outcome else "answer")
    for name in ("position", "target", "answer", "p(answer)", "p(target)", "entropy, nats"):
        table.add_column(name, justify="right")
    reading = example.reading
    for i, (want, got) in enumerate(zip(example.target, example.answer, strict=True)):
        style = "dim" if i not in example.answered else "green" if want == got else "bold red"
        name = f"{i} (first hop)" if i == 1 else str(i)
        numbers = [f"{getattr(reading, key)[i]:.3f}" if reading else "-" for key in ("p_answer", "p_target", "entropy")]
        table.add_row(name, want, Text(got, style), *numbers)
    return table


if __name__ == "__main__":
    exit_on_error(main)
