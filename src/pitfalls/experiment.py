"""Config -> objects -> record: one run, from a typed config to what it leaves behind.

Objects are built by registries: no config can name code to run, and the config of a run folder is read as data.
"""

import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pitfalls import records
from pitfalls.schemas import MODEL_SCHEMAS, Config, ConfigError, MambaModelConfig, PretrainedModelConfig

if TYPE_CHECKING:  # torch takes seconds to import: it comes in when a run starts
    from pitfalls.evaluation import Evaluation
    from pitfalls.models.trunk import Trunk
    from pitfalls.objectives.base import Objective
    from pitfalls.tasks.data import Splits
    from pitfalls.tasks.path_star import PathStar
    from pitfalls.tasks.vocabulary import Vocabulary
    from pitfalls.training.checkpoint import Progress
    from pitfalls.training.trackers import Tracker

ROOT = Path(__file__).resolve().parents[2]
log = logging.getLogger(__name__)


# ------------------------------------------------------------------ configs


def typed(data: DictConfig) -> Config:
    """The typed, range-checked config of an omegaconf tree that the schemas have shaped.

    Raises:
        ConfigError: a value is missing, out of range, or does not go with another one.
    """
    if unknown := sorted(_unknown_keys(data)):
        raise ConfigError(
            f"{unknown[0]}: there is no such key (a + in front of a key does not make one); see --cfg job"
        )
    missing = sorted(OmegaConf.missing_keys(data))
    if missing:
        raise ConfigError(f"{missing[0]} has no value; set it on the command line or in a preset under conf/")
    config = OmegaConf.to_object(data)
    assert isinstance(config, Config)
    return config


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that no schema has: omegaconf lets ``+key=value`` add them, and a run would ignore them."""
    schema = OmegaConf.get_type(node)
    known = {f.name for f in fields(schema)} if schema is not None and is_dataclass(schema) else set()
    for key in map(str, node):
        if key not in known:
            yield f"{prefix}{key}"
        elif not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            yield from _unknown_keys(node[key], f"{prefix}{key}.")


def load_config(run_dir: Path) -> Config:
    """The config of a run folder, read as data: types and ranges are checked, nothing is composed.

    Raises:
        ConfigError: there is none, or it is not a config of this version.
    """
    path = run_dir / records.CONFIG
    if not path.exists():
        raise ConfigError(f"{path}: no such file; {run_dir} is not the folder of a run")
    try:
        data = OmegaConf.load(path)
        assert isinstance(data, DictConfig)
        schema = OmegaConf.structured(Config)
        architecture = str(OmegaConf.select(data, "model.architecture"))
        if architecture not in MODEL_SCHEMAS:
            raise ConfigError(f"{path}: model.architecture={architecture}: choose one of {', '.join(MODEL_SCHEMAS)}")
        schema.model = OmegaConf.structured(MODEL_SCHEMAS[architecture])
        return typed(OmegaConf.merge(schema, data))  # type: ignore[arg-type]
    except (OmegaConfBaseException, ConfigError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None


def resolve(config: Config) -> Config:
    """The config with device and precision decided, as it is hashed and written.

    Raises:
        ConfigError: the device is not there.
    """
    from pitfalls.training.device import resolve_device, resolve_precision

    try:
        device = resolve_device(config.training.device)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    precision = resolve_precision(config.training.precision, device)
    if config.training.precision == "auto" and device.type == "cpu" and isinstance(config.model, MambaModelConfig):
        precision = "fp32"  # its recurrence runs in fp32 anyway, and the casts cost more than the products gain
    return replace(config, training=replace(config.training, device=device.type, precision=precision))


def run_dir_of(config: Config) -> Path:
    """The folder of a (resolved) config's run."""
    return Path(config.runs_dir) / records.run_name(asdict(config))


# ------------------------------------------------------------------ building


@dataclass(frozen=True)
class Cell:
    """The objects of a run."""

    config: Config
    task: "PathStar"
    trunk: "Trunk"
    objective: "Objective"


def build(config: Config) -> Cell:
    """Task, trunk and objective of a (resolved) config, with their initial weights.

    Raises:
        ConfigError: a part cannot be built; raised before any compute.
    """
    import torch

    from pitfalls.models.factory import build_trunk
    from pitfalls.objectives import Spec, build_objective
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
        spec = Spec(vocabulary, task.prompt_length, task.target_length, trunk.width, trunk.n_layers, trunk.n_heads)
        objective = build_objective(config.objective, spec, generator(config.seed, "objective_init")).to(device)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if config.model.init_from is not None:
        _load_trunk(trunk, Path(config.model.init_from))
    return Cell(config, task, trunk, objective)


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

    path = checkpoint.latest(run_dir / records.CHECKPOINT)
    if not records.is_finished(run_dir) or path is None:
        raise ConfigError(f"model.init_from={run_dir}: not the folder of a finished run with its checkpoint")
    try:
        checkpoint.load_trunk(path, trunk)
    except ValueError as error:
        raise ConfigError(f"model.init_from={run_dir}: {error}") from None


def load_run(run_dir: Path) -> Cell:
    """A run's objects with the weights of its latest checkpoint, on the device that it was trained on or the CPU.

    Raises:
        ConfigError: the folder holds no run, or no checkpoint.
    """
    import torch

    from pitfalls.training import checkpoint

    config = load_config(run_dir)
    if not torch.cuda.is_available():
        config = replace(config, training=replace(config.training, device="cpu"))
    path = checkpoint.latest(run_dir / records.CHECKPOINT)
    if path is None:
        raise ConfigError(f"{run_dir / records.CHECKPOINT}: no checkpoint; train the run first")
    cell = build(config)
    checkpoint.load(path, trunk=cell.trunk, objective=cell.objective)
    cell.trunk.eval()
    return cell


def make_run_splits(cell: Cell) -> "Splits":
    """The training stream and the test graphs of a run, the same whenever it is asked.

    Raises:
        ConfigError: the task has too few graphs for a disjoint split.
    """
    from pitfalls.tasks.data import make_splits

    task, training = cell.config.task, cell.config.training
    try:
        return make_splits(
            cell.task,
            seed=cell.config.seed,
            batch_size=training.batch_size,
            train_graphs=task.train_graphs,
            test_graphs=task.test_graphs,
            targets_per_graph=task.targets_per_graph,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


# ------------------------------------------------------------------ running


def run(config: Config, *, trackers: "Callable[[Config], Sequence[Tracker]] | None" = None) -> dict[str, Any]:
    """Train a run to its end and write its record; a finished run is read, a stopped one continued.

    Args:
        config: as composed; device and precision are resolved here.
        trackers: makes listeners for the run's numbers beside ``metrics.jsonl``; by default the terminal.

    Returns:
        The record (see `pitfalls.records`).

    Raises:
        ConfigError: before any compute.
        FloatingPointError, Interrupted: see `pitfalls.training.trainer.Trainer`; ``failure.json`` keeps the former.
    """
    config = resolve(config)
    run_dir = run_dir_of(config)
    if records.is_finished(run_dir):
        log.info("%s is finished; delete the folder to train it again", run_dir)
        return records.read_record(run_dir)
    try:
        record = _train(config, run_dir, trackers)
    except Exception as error:
        from pitfalls.training.interrupt import Interrupted

        if not isinstance(error, (ConfigError, Interrupted)):
            run_dir.mkdir(parents=True, exist_ok=True)
            failure = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            records.write_json(run_dir / records.FAILURE, failure)
        raise
    (run_dir / records.FAILURE).unlink(missing_ok=True)
    return record


def _train(
    config: Config, run_dir: Path, trackers: "Callable[[Config], Sequence[Tracker]] | None"
) -> dict[str, Any]:
    import torch

    from pitfalls.seeding import derive_seed
    from pitfalls.training.display import terminal_display
    from pitfalls.training.trackers import JsonLines
    from pitfalls.training.trainer import Trainer

    environment = records.environment(ROOT)  # of the code that runs, whatever becomes of the checkout meanwhile
    torch.set_num_threads(config.training.n_threads)
    torch.manual_seed(derive_seed(config.seed, "global"))  # all that draws from it are layers such as dropout
    cell = build(config)
    splits = make_run_splits(cell)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_config(config, run_dir / records.CONFIG)
    evaluate = Evaluator(cell, {"test": splits.test, "train": splits.train.all_rows()})
    trainer = Trainer(
        trunk=cell.trunk,
        objective=cell.objective,
        stream=splits.train,
        config=config.training,
        seed=config.seed,
        evaluate=lambda: evaluate(config.training.eval_graphs),
        checkpoint_dir=run_dir / records.CHECKPOINT,
    )
    step = trainer.resume()
    listeners = (trackers or terminal_display)(config)
    trainer.trackers = [JsonLines(run_dir / records.METRICS, resume_step=step), *listeners]
    if step:
        log.info("%s continues after step %d", run_dir, step)
    try:
        progress = trainer.run()
        final = evaluate(None)
    finally:
        for tracker in trainer.trackers:
            tracker.close()
    record = {"run": run_dir.name, **_outcome(cell, progress, final), **environment}
    records.write_json(run_dir / records.RECORD, record)
    return record


def _outcome(cell: Cell, progress: "Progress", final: "dict[str, Evaluation]") -> dict[str, Any]:
    """The part of a record that the run itself decides."""
    config = cell.config
    return {
        "seed": config.seed,
        "steps": progress.step,
        "samples_seen": progress.step * config.training.batch_size,
        "stopped_early": progress.step < config.training.n_steps,
        "n_parameters": sum(p.numel() for p in (*cell.trunk.parameters(), *cell.objective.parameters())),
        "wall_s": round(progress.wall_s, 3),
        "cpu_s": round(progress.cpu_s, 3),
        "supervised_positions": list(cell.objective.supervised()),
        "evaluation": {split: evaluation.to_json() for split, evaluation in final.items()},
        "model_tokens": _model_tokens(cell.objective.spec.vocabulary),
        "config": asdict(config),
    }


def _model_tokens(vocabulary: "Vocabulary") -> dict[str, list[Any]] | None:
    """What each node value and symbol is to a pretrained model: id and text of one of its tokens."""
    tokens = vocabulary.model_tokens
    return None if tokens is None else {vocabulary.symbol(i): list(token) for i, token in enumerate(tokens)}


class Evaluator:
    """Scores the current weights of a cell on its splits; a split of None (no training set to go back to) is left out."""

    def __init__(self, cell: Cell, splits: dict[str, Any]) -> None:
        self.cell = cell
        self.splits = {name: batch for name, batch in splits.items() if batch is not None}

    def __call__(self, n_rows: int | None) -> "dict[str, Evaluation]":
        """Score the first n_rows of each split, or all of them."""
        import torch

        from pitfalls.evaluation import evaluate

        training = self.cell.config.training
        with torch.autocast(training.device, torch.bfloat16, enabled=training.precision == "bf16"):
            return {
                name: evaluate(
                    self.cell.trunk,
                    self.cell.objective,
                    self.cell.task,
                    batch.rows(0, len(batch.prompt) if n_rows is None else n_rows).to(training.device),
                )
                for name, batch in self.splits.items()
            }


def write_config(config: Config, path: Path) -> None:
    """Write a resolved config, as `load_config` reads it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
    partial.replace(path)
