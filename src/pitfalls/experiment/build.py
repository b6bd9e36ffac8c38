"""The objects of a run: its task, trunk and objective, with their initial or their trained weights.

A config can only name objects of this package. It cannot name code to run.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pitfalls.experiment.config import load_config
from pitfalls.runs import run_folder
from pitfalls.runs.counts import Evaluation, Split
from pitfalls.runs.files import FileError
from pitfalls.runs.probe_records import Probes
from pitfalls.runs.records import EvaluationRow, Example, SampleCost
from pitfalls.runs.sweeps import state_of
from pitfalls.schemas import CausalLMModelConfig, Config, ConfigError, ModelConfig, PretrainedModelConfig

if TYPE_CHECKING:  # torch takes seconds to import, so it is imported when a run starts
    import torch

    from pitfalls.models.trunk import Trunk
    from pitfalls.objectives.base import Objective, Spec
    from pitfalls.tasks.batch import Batch
    from pitfalls.tasks.path_star import PathStar
    from pitfalls.tasks.splits import Splits
    from pitfalls.tasks.vocabulary import Vocabulary

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """The config, task, trunk and objective of a run."""

    config: Config
    task: "PathStar"
    trunk: "Trunk"
    objective: "Objective"

    def __repr__(self) -> str:
        config, n = self.config, sum(parameter.numel() for parameter in self.trunk.parameters())
        graph = f"{self.task} on {self.task.n_values} node values"
        return f"Run({config.objective.name}, {config.model.name} with {n:,} parameters, {graph}, seed {config.seed})"

    @property
    def device(self) -> str:
        """The device of the trunk, such as "cpu"."""
        return self.config.training.device

    def autocast(self) -> "torch.autocast":
        """Return the context of the run's precision: bf16 autocast, or a context without effect for fp32."""
        from pitfalls.training.device import autocast

        return autocast(self.config.training)

    def evaluate(self, graphs: "Batch", decoder: str | None = None) -> Evaluation:
        """Return the scores of the current weights on graphs.

        Args:
            graphs: B graphs with their paths, on any device.
            decoder: a decoding procedure of the objective, by default its own inference.

        Raises:
            ConfigError: the objective has no such procedure.
        """
        from pitfalls.evaluation.score import evaluate

        with self.autocast():
            return evaluate(self.trunk, self.objective, self.task, graphs.to(self.device), procedure=decoder)

    def evaluate_splits(self, splits: "Splits", n_rows: int | None = None) -> dict[Split, Evaluation]:
        """Return the scores on the first n_rows of the test graphs and of a fixed training set, or on all rows."""
        batches: dict[Split, Batch | None] = {"test": splits.test, "train": splits.train.all_rows()}
        return {
            name: self.evaluate(batch.rows(0, len(batch.prompt) if n_rows is None else n_rows))
            for name, batch in batches.items()
            if batch is not None
        }

    def sample_cost(self, rows: "Batch") -> SampleCost:
        """Return the mean cost of a training sample, counted on a few rows. No weight changes."""
        from pitfalls.training.cost import measure

        with self.autocast():
            return measure(self.trunk, self.objective, rows.to(self.device), self.config.seed)

    def examples(self, graphs: "Batch") -> list[Example]:
        """Return the answers to B graphs, token by token."""
        from pitfalls.evaluation.score import examples

        with self.autocast():
            return examples(self.trunk, self.objective, self.task, graphs.to(self.device))

    def probe(
        self,
        graphs: "Batch",
        evaluations: Mapping[Split, Evaluation],
        curve: Sequence[EvaluationRow],
        tell: Callable[[int, int], object] = lambda done, total: None,
    ) -> tuple[Probes, dict[str, str]]:
        """Return the results of all probes, and why a probe has none, by its name.

        The first three arguments are those of `pitfalls.probes.ProbedModel`. ``tell`` is told after each probe how many are done,
        and of how many.
        """
        from pitfalls.probes import ProbedModel, absent_probes, run_probes

        graphs = graphs.to(self.device)
        probed = ProbedModel(self.trunk, self.objective, self.task, graphs, self.config.seed, evaluations, curve)
        with self.autocast():
            return run_probes(probed, tell), absent_probes(probed)


def build(config: Config) -> Run:
    """Return the task, trunk and objective of a resolved config, with their initial weights.

    Raises:
        ConfigError: task, trunk or objective cannot be built. Nothing has been computed yet.
    """
    import torch

    from pitfalls.models.factory import build_trunk
    from pitfalls.models.load_check import check_trunk_reads
    from pitfalls.objectives import build_objective, check_trunk, objective_class
    from pitfalls.seeding import generator
    from pitfalls.tasks.path_star import PathStar

    device = torch.device(config.training.device)
    task = PathStar(config.task.degree, config.task.path_length, config.task.n_values)
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
    check_trunk(config.objective, config.model.name, recurrent=trunk.recurrent)  # of a pretrained model, this is known only now
    if isinstance(config.model, CausalLMModelConfig | PretrainedModelConfig):
        needs = objective_class(config.objective.name).needs
        untrained, typed = isinstance(config.model, CausalLMModelConfig), config.model.as_typed
        check_trunk_reads(trunk, task.n_positions, vocabulary.size, typed, needs, untrained=untrained)
    spec = make_spec(config.model, vocabulary, task, trunk, device)
    objective = build_objective(config.objective, spec, generator(config.seed, "objective_init"))
    objective = objective.to(device, trunk.lm.dtype)
    if config.model.init_from is not None:
        _load_trunk(trunk, Path(config.model.init_from))
    return Run(config, task, trunk, objective)


def make_spec(model: ModelConfig, vocabulary: "Vocabulary", task: "PathStar", trunk: "Trunk", device: "torch.device") -> "Spec":
    """Return the sizes of a task and a trunk for an objective, with functions that build more blocks of the same kind."""
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
    """Return the task's token ids. For a pretrained model they are mapped to existing tokens."""
    from pitfalls.tasks.vocabulary import Vocabulary

    if not isinstance(config.model, PretrainedModelConfig) or config.model.new_tokens:
        return Vocabulary(config.task.n_values)
    from pitfalls.models.pretrained import load_tokenizer

    return Vocabulary.from_tokenizer(load_tokenizer(config.model), config.task.n_values)


def _load_trunk(trunk: "Trunk", run_dir: Path) -> None:
    """Replace a trunk's weights by the final weights of another run.

    Raises:
        ConfigError: that run has not finished, or its trunk has another shape.
    """
    from pitfalls.training import checkpoint

    path = checkpoint.latest(run_dir / run_folder.CHECKPOINT)
    if not run_folder.is_finished(run_dir) or path is None:
        raise ConfigError(
            f"model.init_from={run_dir}: it has no checkpoint, or is no finished run; give the folder of one, or null"
        )
    try:
        checkpoint.load_trunk(path, trunk)
    except FileError as error:
        raise ConfigError(f"model.init_from={run_dir}: {error}") from None


def load_run(folder: str | Path) -> Run:
    """Return a run with the weights of its latest checkpoint, on the device that it was trained on, or else on the CPU.

    If the run has not finished, a warning says so, and which step the weights are from. The fields of a run are ``config``,
    ``task``, ``trunk`` (the model) and ``objective``.

    Raises:
        ConfigError: the folder holds no run, or no checkpoint.
        FileError: the checkpoint is damaged.
    """
    import torch

    from pitfalls.seeding import generator
    from pitfalls.training import checkpoint

    run_dir = Path(folder)
    config = load_config(run_dir)
    if not torch.cuda.is_available():
        config = replace(config, training=replace(config.training, device="cpu"))
    config = replace(config, model=replace(config.model, init_from=None))  # the run's own weights are loaded below
    path = checkpoint.latest(run_dir / run_folder.CHECKPOINT)
    if path is None:
        raise ConfigError(f"{run_dir / run_folder.CHECKPOINT}: no checkpoint; train the run first")
    run = build(config)
    run.objective.check_view(run.task.sample(4, generator(config.seed, "probe")).to(run.device))  # its code may have changed
    progress = checkpoint.load(path, trunk=run.trunk, objective=run.objective)
    if not progress.finished or not run_folder.is_finished(run_dir):
        log.warning(
            "%s; these are the weights of step %d of %d", _why_unfinished(run_dir), progress.step, config.training.n_steps
        )
    run.trunk.eval()
    return run


def _why_unfinished(run_dir: Path) -> str:
    """Return in words why a folder has no final weights."""
    state = state_of(run_dir)
    how = {
        "running": "is still being trained",
        "failed": f"has failed ({state.note})",
        "finished": "has finished, but without its last checkpoint",
    }
    return f"{run_dir} {how.get(state.name, 'has not finished')}"


def make_run_splits(run: Run) -> "Splits":
    """Return the training stream and the test graphs of a run. They are the same in every call.

    Raises:
        ConfigError: the task has too few graphs for a disjoint split.
    """
    from pitfalls.tasks.splits import make_splits

    task = run.config.task
    return make_splits(
        run.task,
        seed=run.config.seed,
        batch_size=run.config.training.batch_size,
        train_graphs=task.train_graphs,
        test_graphs=task.test_graphs,
        targets_per_graph=task.targets_per_graph,
    )
