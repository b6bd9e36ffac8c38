"""The objects of a run: config -> task, trunk and objective; with the weights that a run ended with, or initial ones.

Objects are built by registries: no config can name code to run.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pitfalls.experiment.config import load_config
from pitfalls.runs import run_folder
from pitfalls.schemas import Config, ConfigError, ModelConfig, PretrainedModelConfig, RecurrentModelConfig

if TYPE_CHECKING:  # torch takes seconds to import: it comes in when a run starts
    import torch

    from pitfalls.models.trunk import Trunk
    from pitfalls.objectives.base import Objective, Spec
    from pitfalls.tasks.batch import Batch
    from pitfalls.tasks.path_star import PathStar
    from pitfalls.tasks.splits import Splits
    from pitfalls.tasks.vocabulary import Vocabulary


@dataclass(frozen=True)
class Run:
    """The objects of a run."""

    config: Config
    task: "PathStar"
    trunk: "Trunk"
    objective: "Objective"


def build(config: Config) -> Run:
    """Task, trunk and objective of a (resolved) config, with their initial weights.

    Raises:
        ConfigError: a part cannot be built; raised before any compute.
    """
    import torch

    from pitfalls.models.factory import build_trunk
    from pitfalls.objectives import build_objective
    from pitfalls.seeding import generator
    from pitfalls.tasks.path_star import PathStar

    device = torch.device(config.training.device)
    task = PathStar(config.task.degree, config.task.path_length, config.task.n_values)
    try:
        vocabulary = _vocabulary(config)
        tokens = vocabulary.model_tokens
        trunk = build_trunk(
            config.model,
            n_tokens=vocabulary.size,
            n_positions=task.n_positions,
            generator=generator(config.seed, "init"),
            device=device,
            token_ids=None if tokens is None else tuple(token.id for token in tokens),
        )
        spec = make_spec(config.model, vocabulary, task, trunk, device)
        _check_trunk(config, recurrent=trunk.recurrent)
        objective = build_objective(config.objective, spec, generator(config.seed, "objective_init"))
        objective = objective.to(device, trunk.lm.dtype)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if config.model.init_from is not None:
        _load_trunk(trunk, Path(config.model.init_from))
    return Run(config, task, trunk, objective)


def make_spec(model: ModelConfig, vocabulary: "Vocabulary", task: "PathStar", trunk: "Trunk", device: "torch.device") -> "Spec":
    """What an objective may know of a task and a trunk, and how it gets more blocks of the same kind."""
    from pitfalls.models.factory import build_block, build_encoder
    from pitfalls.objectives.base import Spec

    return Spec(
        vocabulary,
        task.prompt_length,
        task.target_length,
        trunk.width,
        new_block=lambda draws: build_block(model, trunk, generator=draws, device=device),
        new_encoder=lambda draws: build_encoder(model, n_positions=task.target_length + 1, generator=draws, device=device),
    )


def _vocabulary(config: Config) -> "Vocabulary":
    """The task's token ids, mapped to existing tokens where the model is a pretrained one."""
    from pitfalls.tasks.vocabulary import Vocabulary

    if not isinstance(config.model, PretrainedModelConfig) or config.model.new_tokens:
        return Vocabulary(config.task.n_values)
    from pitfalls.models.pretrained import load_tokenizer

    return Vocabulary.from_tokenizer(load_tokenizer(config.model), config.task.n_values)


def _load_trunk(trunk: "Trunk", run_dir: Path) -> None:
    """Replace a trunk's weights by those that another run ended with.

    Raises:
        ConfigError: there is no finished run, or its trunk has another shape.
    """
    from pitfalls.training import checkpoint

    path = checkpoint.latest(run_dir / run_folder.CHECKPOINT)
    if not run_folder.is_finished(run_dir) or path is None:
        raise ConfigError(f"model.init_from={run_dir}: not the folder of a finished run with its checkpoint")
    try:
        checkpoint.load_trunk(path, trunk)
    except ValueError as error:
        raise ConfigError(f"model.init_from={run_dir}: {error}") from None


def load_run(run_dir: Path) -> Run:
    """A run's objects with the weights of its latest checkpoint, on the device that it was trained on or the CPU.

    Raises:
        ConfigError: the folder holds no run, or no checkpoint.
    """
    import torch

    from pitfalls.training import checkpoint

    config = load_config(run_dir)
    if not torch.cuda.is_available():
        config = replace(config, training=replace(config.training, device="cpu"))
    config = replace(config, model=replace(config.model, init_from=None))  # its own weights follow
    path = checkpoint.latest(run_dir / run_folder.CHECKPOINT)
    if path is None:
        raise ConfigError(f"{run_dir / run_folder.CHECKPOINT}: no checkpoint; train the run first")
    run = build(config)
    checkpoint.load(path, trunk=run.trunk, objective=run.objective)
    run.trunk.eval()
    return run


def new_graphs(run: Run, n_graphs: int, seed: int) -> "Batch":
    """Graphs drawn anew, none of them from a fixed training set; an online run of a small task may have seen some."""
    import torch

    from pitfalls.seeding import generator
    from pitfalls.tasks.splits import sample_unseen

    rows = make_run_splits(run).train.all_rows()
    seen = torch.empty(0, dtype=torch.long) if rows is None else run.task.graph_keys(rows.prompt).unique()
    return sample_unseen(run.task, n_graphs, generator(seed, "probe"), seen)


def autocast(config: Config) -> "torch.autocast":
    """The precision that a (resolved) config trains and evaluates in."""
    import torch

    return torch.autocast(config.training.device, torch.bfloat16, enabled=config.training.precision == "bf16")


def check(config: Config) -> None:
    """Refuse a config that cannot be trained, as far as that is known without building its model.

    Raises:
        ConfigError: too few distinct graphs for disjoint sets, no run to take initial weights from, or an objective that the
            model cannot be trained with.
    """
    from pitfalls.objectives import objective_class
    from pitfalls.tasks.path_star import PathStar
    from pitfalls.tasks.splits import check_split

    _check_trunk(config, recurrent=isinstance(config.model, RecurrentModelConfig))
    objective_class(config.objective.name).horizon_for(config.objective, config.task.path_length)
    task = config.task
    graphs = PathStar(task.degree, task.path_length, task.n_values)
    try:
        check_split(graphs, train_graphs=task.train_graphs, test_graphs=task.test_graphs)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    start = config.model.init_from
    if start is not None and not run_folder.is_finished(Path(start)):
        raise ConfigError(f"model.init_from={start}: not the folder of a finished run")


def _check_trunk(config: Config, *, recurrent: bool) -> None:
    from pitfalls.objectives import objective_class

    needs = objective_class(config.objective.name).needs
    if recurrent and needs:
        raise ConfigError(
            f"objective={config.objective.name} sets {' and '.join(needs)} of its own, and model={config.model.name} is "
            f"recurrent: it reads tokens in their order. Choose a Transformer, for example model=gpt_tiny"
        )


def make_run_splits(run: Run) -> "Splits":
    """The training stream and the test graphs of a run, the same whenever it is asked.

    Raises:
        ConfigError: the task has too few graphs for a disjoint split.
    """
    from pitfalls.tasks.splits import make_splits

    task, training = run.config.task, run.config.training
    try:
        return make_splits(
            run.task,
            seed=run.config.seed,
            batch_size=training.batch_size,
            train_graphs=task.train_graphs,
            test_graphs=task.test_graphs,
            targets_per_graph=task.targets_per_graph,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
