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

from pitfalls.application import exit_on_error
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:
    from pitfalls.experiment import Cell
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
    from pitfalls.experiment import load_run
    from pitfalls.seeding import generator

    cell = load_run(args.run_dir)
    if args.data:
        from pitfalls.tasks.official_format import read_batches

        batch = next(read_batches(args.data, cell.task.n_values)).rows(0, args.graphs)
    else:
        batch = cell.task.sample(args.graphs, generator(args.seed, "probe"))
    console = Console()
    for block in show(cell, batch.to(cell.config.training.device)):
        console.print(block)


def show(cell: "Cell", batch: "Batch") -> list[Text | Table]:
    """One block per graph: its edges and question, then the answer token by token."""
    from pitfalls.decoding import decode
    from pitfalls.evaluation import read_answer

    answer = decode(cell.trunk, cell.objective, batch.prompt, batch.target.shape[1])
    reading = read_answer(cell.trunk, cell.objective, batch, answer)
    outcomes = cell.task.verify(batch.prompt, answer).tolist()
    blocks: list[Text | Table] = []
    for row in range(len(answer)):
        edges = "  ".join(f"{a}→{b}" for a, b in cell.task.edges(batch.prompt)[row].tolist())
        question = f"from {cell.task.start(batch.prompt)[row]} to {cell.task.goal(batch.prompt)[row]}"
        blocks.append(Text(f"\ngraph {row}: {edges}\n{question}", "bold"))
        numbers = {} if reading is None else {name: values[row].tolist() for name, values in reading._asdict().items()}
        supervised = cell.objective.supervised()
        blocks.append(_tokens(cell, batch.target[row].tolist(), answer[row].tolist(), numbers, outcomes[row], supervised))
    return blocks


def _tokens(
    cell: "Cell",
    target: list[int],
    answer: list[int],
    numbers: dict[str, list[float]],
    outcome: int,
    supervised: tuple[int, ...],
) -> Table:
    from pitfalls.tasks.path_star import Outcome

    whole = len(supervised) == len(target)
    table = Table(title=f"answer: {Outcome(outcome).name.lower().replace('_', ' ')}" if whole else "answer")
    for name in ("position", "target", "answer", "p(answer)", "p(target)", "entropy, nats"):
        table.add_column(name, justify="right")
    for i, (want, got) in enumerate(zip(target, answer, strict=True)):
        style = "dim" if i not in supervised else "green" if want == got else "bold red"
        name = f"{i} (first hop)" if i == 1 else str(i)
        shown = [f"{numbers[key][i]:.3f}" if numbers else "-" for key in ("p_answer", "p_target", "entropy")]
        table.add_row(name, cell.task.vocabulary.symbol(want), Text(cell.task.vocabulary.symbol(got), style), *shown)
    return table


if __name__ == "__main__":
    exit_on_error(main)
