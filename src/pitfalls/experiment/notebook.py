"""Functions for a notebook: train a run, let it answer a graph typed by hand, get its states and attention, draw a graph.

The package `pitfalls` exports these functions. They import torch only when they need it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from pitfalls.experiment.build import Run
from pitfalls.experiment.graph_checks import Edges, arms_of, check_graph, edge_pairs, integer, node_values, path_to
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from matplotlib.axes import Axes
    from torch import Tensor

# ------------------------------------------------------------------ runs


def train(overrides: Sequence[str] = (), *, runs_dir: str | Path = "runs", quiet: bool = False) -> Path:
    """Train a run in this process, and return its folder, for `load_run` and `records`.

    A finished run is not trained again, and a stopped run continues, as with ``python scripts/train.py OVERRIDES``. The
    number of threads and torch's random state are restored afterwards.

    Args:
        overrides: choices and keys as on the command line, such as ``["experiment=laptop/teacherless", "seed=1"]``.
        runs_dir: the folder in which the run's folder is made.
        quiet: whether to print nothing while it trains.

    Raises:
        ConfigError: an override is wrong. Nothing has been computed.
        RunTakenError: another process trains this run.
        Interrupted: the kernel was interrupted. The run has saved, and the same call continues it.
    """
    import torch

    from pitfalls.experiment.config import resolve, run_dir_of
    from pitfalls.experiment.hydra_app import compose, override
    from pitfalls.experiment.run import train_run
    from pitfalls.seeding import forked_rng

    if isinstance(overrides, str):
        raise ConfigError(f"overrides={overrides!r}: give a list of overrides, for example {overrides.split()}")
    config = resolve(compose([*overrides, override("runs_dir", runs_dir)]))
    n_threads = torch.get_num_threads()
    try:
        with forked_rng(config.training.device):
            train_run(config, make_display=(lambda _: []) if quiet else None, overrides=overrides)
    finally:
        torch.set_num_threads(n_threads)
    return run_dir_of(config)


# ------------------------------------------------------------------ graphs typed by hand


def prompt(run: Run, edges: Edges, start: SupportsIndex, goal: SupportsIndex, answer: Sequence[int] = ()) -> "Int[Tensor, '1 T']":
    """Return the T = P + len(answer) tokens of a graph typed by hand and of the beginning of an answer.

    Args:
        run: a run from `load_run`. Its task sets the number of arms, nodes and values of a graph.
        edges: the (parent, child) pairs in the order of the prompt. In training, their order is random.
        start: the node that all arms leave.
        goal: the end of one arm.
        answer: node values after the ``=``.

    Raises:
        ConfigError: this is no graph of the run's task. The message names the edge or the node.
    """
    import torch

    task = check_run(run).task
    pairs, path = check_graph(task, edges, start, goal)
    symbol = task.vocabulary.id
    tokens = [token for a, b in pairs for token in (a, b, symbol("|"))]
    tokens[-1] = symbol("/")
    after = node_values(task, answer, "answer")
    return torch.tensor([[*tokens, path[0], path[-1], symbol("="), *after]], device=run.config.training.device)


def check_run(run: Run, name: str = "run") -> Run:
    """Return the run that an argument of this name holds.

    Raises:
        ConfigError: it is something else, for example the folder of a run.
    """
    if not isinstance(run, Run):
        raise ConfigError(f"{name}={run!r} is a {type(run).__name__}: give a run, pitfalls.load_run(folder)")
    return run


@dataclass(frozen=True, eq=False)
class Answer:
    """A run's answer to one graph: L tokens from the start to the goal."""

    tokens: tuple[str, ...]
    """Node values and symbols as text."""
    target: tuple[str, ...]
    """The right path."""
    outcome: str | None
    """Outcome: right arm, wrong arm, wrong arm then goal, or broken walk. None for a method without whole paths as answers."""
    probabilities: "Float[Tensor, 'L V'] | None"
    """Predicted probabilities of the V token ids of the task, at each position of the model's own answer.

    Each prediction is given the tokens that the method writes earlier. For reversed targets, these come later in the path.
    It is None for a method without such predictions.
    """

    def __repr__(self) -> str:
        return f"Answer({' '.join(self.tokens)}: {self.outcome or 'not a whole path'})"


def answer(run: Run, edges: Edges, start: SupportsIndex, goal: SupportsIndex, *, begin: Sequence[int] = ()) -> Answer:
    """Return the greedy answer of a run to a graph typed by hand, by its objective's own decoder.

    Args:
        run: a run from `load_run`.
        edges: the (parent, child) pairs in the order of the prompt.
        start: the node that all arms leave.
        goal: the end of one arm.
        begin: the first tokens of the answer, which the model then continues. For example, the start and the first node of a
            wrong arm show whether it follows that arm.

    Raises:
        ConfigError: this is no graph of the run's task, or the method cannot continue a given beginning of an answer.
    """
    import torch

    from pitfalls.evaluation.decoding import decode
    from pitfalls.tasks.batch import Batch
    from pitfalls.tasks.path_star import Outcome

    task = check_run(run).task
    symbol, given = task.vocabulary.symbol, node_values(task, begin, "begin")
    pairs, path = check_graph(task, edges, start, goal)
    tokens = prompt(run, pairs, path[0], path[-1])
    with torch.no_grad(), run.autocast():
        answered = _go_on(run, tokens, given) if given else decode(run.trunk, run.objective, tokens, task.target_length)
        logits = run.objective.forced_logits(run.trunk, run.objective.view(Batch(tokens, answered)))
    places = list(run.objective.places(task.target_length))
    whole = len(run.objective.supervised()) == task.target_length
    return Answer(
        tokens=tuple(symbol(token) for token in answered[0].tolist()),
        target=tuple(map(str, path)),
        outcome=Outcome(int(task.verify(tokens, answered))).name.lower().replace("_", " ") if whole else None,
        probabilities=None if logits is None else logits[0, places, : task.vocabulary.size].float().softmax(-1).cpu(),
    )


def _go_on(run: Run, tokens: "Tensor", begin: list[int]) -> "Tensor":
    """Return the answer [1,L] that continues the given beginning."""
    from pitfalls.evaluation.decoding import PROCEDURES

    name, procedure, length = run.config.objective.name, PROCEDURES[run.objective.decoders[0]], run.task.target_length
    written = run.objective.written_length(length)
    if not procedure.takes_prefix or run.objective.places(length) != tuple(range(written)):
        raise ConfigError(f"begin={begin}: objective={name} does not write its answer from the start on; leave it out")
    if len(begin) > length:
        raise ConfigError(f"begin={begin}: an answer of this run has {length} tokens; give fewer of them")
    return procedure.answer(run.trunk, run.objective, tokens, length, prefix=tokens.new_tensor([begin]))


# ------------------------------------------------------------------ inside the model


def _check_tokens(run: Run, tokens: Any) -> None:
    """Raise an error unless these are token ids [B,T] of the run's task."""
    import torch

    check_run(run)
    kinds, remedy = (torch.int64, torch.int32), "give pitfalls.prompt(run, edges, start, goal)"
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 2 or tokens.dtype not in kinds or tokens.is_meta:
        raise ConfigError(f"tokens is no integer tensor [B,T]: {remedy}")
    size, longest = run.task.vocabulary.size, run.task.n_positions
    if not tokens.numel() or tokens.shape[1] > longest or not bool(((tokens >= 0) & (tokens < size)).all()):
        raise ConfigError(
            f"tokens: rows of 1 to {longest} ids from 0 to {size - 1} (the task's), got {list(tokens.shape)}; {remedy}"
        )


def hidden_states(run: Run, tokens: "Int[Tensor, 'B T']") -> "Float[Tensor, 'n B T D']":
    """Return the states between the blocks, in the precision of the weights: n = 1 + the number of blocks.

    Entry 0 is what the first block reads, and entry i the output of block i. The last one is taken before the final norm, so
    ``run.trunk.logits(run.trunk.norm(states))`` are the predictions of each layer (the logit lens).

    Args:
        run: a run from `load_run`.
        tokens: token ids of the task, from `prompt` or from ``run.task.sample(...).prompt``.

    Raises:
        ConfigError: ``tokens`` is not what `prompt` returns.
    """
    import torch

    from pitfalls.models.hf_internals import blocks

    _check_tokens(run, tokens)
    states: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, args: states.append(args[0])) for block in blocks(run.trunk.lm)]
    try:
        with torch.no_grad():
            last = run.trunk(tokens.to(run.trunk.lm.device)).pre_norm
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([*states, last])


def attention(run: Run, tokens: "Int[Tensor, 'B T']") -> "Float[Tensor, 'n B H T T']":
    """Return the attention weights of n blocks with H heads. Entry [..., i, j] is how much position i attends to position j.

    Args:
        run: a run from `load_run` whose model is a Transformer.
        tokens: token ids of the task, from `prompt` or from ``run.task.sample(...).prompt``.

    Raises:
        ConfigError: the model is recurrent, or ``tokens`` is not what `prompt` returns.
    """
    import torch

    from pitfalls.models.hf_internals import attention_set_to

    _check_tokens(run, tokens)
    trunk = run.trunk
    if trunk.recurrent:
        raise ConfigError(
            f"model={run.config.model.name} is recurrent, so not every block has attention; hidden_states works for it"
        )
    with torch.no_grad(), attention_set_to(trunk.lm, "eager"):
        embeddings = trunk.embed(tokens.to(trunk.lm.device))
        return torch.stack(trunk.lm.base_model(inputs_embeds=embeddings, output_attentions=True, use_cache=False).attentions)


# ------------------------------------------------------------------ a picture


def plot_graph(axes: "Axes", edges: Edges, start: SupportsIndex, goal: SupportsIndex, answer: Sequence[int | str] = ()) -> None:
    """Draw a path-star graph: the start on the left, and one row for each arm.

    Args:
        axes: the axes to draw on.
        edges: the (parent, child) pairs.
        start: the node that all arms leave. It is drawn in blue.
        goal: the end of one arm. It is drawn in green.
        answer: the nodes of an answer, such as ``Answer.tokens``. Its steps are drawn in red, dashed if they are no edges.

    Raises:
        ConfigError: this is no path-star graph. The message names the edge or the node.
    """
    pairs, start, goal = edge_pairs(edges), integer(start, "the start"), integer(goal, "the goal")
    arms = arms_of(pairs, start)
    if not arms:
        raise ConfigError(f"the start, {start}, has no arms: no edge begins there")
    path_to(goal, arms)
    places = {start: (0.0, -(len(arms) - 1) / 2)}
    places |= {node: (float(column), -float(row)) for row, arm in enumerate(arms) for column, node in enumerate(arm) if column}
    apart = [pair for pair in pairs if pair[1] not in places]
    if apart:
        raise ConfigError(f"the edge {apart[0]} belongs to no arm: no path leads to it from the start, {start}")
    walk = [node for text in answer for node in places if str(node) == str(text)]
    steps = list(pairwise(walk))
    for a, b in dict.fromkeys([*pairs, *steps]):
        looks: Any = {"arrowstyle": "-|>", "shrinkA": 11, "shrinkB": 11, "color": "0.6"}
        if (a, b) in steps:
            looks |= {"color": "#D55E00", "linewidth": 2, "linestyle": "-" if (a, b) in pairs else "--"}
        axes.annotate("", places[b], places[a], arrowprops=looks)
    for node, (x, y) in places.items():
        colour = "#56B4E9" if node == start else "#5FD38D" if node == goal else "white"
        axes.text(x, y, str(node), ha="center", va="center", bbox={"boxstyle": "circle,pad=0.3", "fc": colour, "ec": "0.3"})
    axes.set(xlim=(-0.5, max(x for x, _ in places.values()) + 0.5), ylim=(0.5 - len(arms), 0.5))
    axes.set_axis_off()
