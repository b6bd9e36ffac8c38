"""The degeneration lab on presets and finished runs: its model, its working folder, its tables and figures.

`pitfalls.language.lab` measures. It knows neither presets nor runs, so this module loads them for it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from pitfalls.experiment.build import load_run
from pitfalls.experiment.config import CONF, ROOT
from pitfalls.experiment.evaluate_run import first_test_graphs
from pitfalls.language import lab_figures, lab_tables
from pitfalls.language.beliefs import judge_beliefs, read_beliefs
from pitfalls.language.lab_record import LabRecord, LabSource, PastGoal
from pitfalls.results import formats
from pitfalls.results.formats import Table
from pitfalls.runs import provenance, run_folder
from pitfalls.runs.files import read_json, write_json
from pitfalls.runs.lock import RunLock
from pitfalls.schemas import ConfigError, PretrainedModelConfig

LAB_CONF = CONF / "degeneration"
PATH_STAR = "path_star.json"


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
    from pitfalls.models.model_folder import with_digest
    from pitfalls.models.pretrained import load_lm, load_tokenizer

    model = with_digest(model)
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
    from pitfalls.language.past_the_goal import measure_past_goal

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PATH_STAR
    entries = {entry.run: entry for entry in (read_json(file, list[PastGoal]) if file.exists() else [])}
    for run_dir in run_dirs:
        record, run = run_folder.read_record(run_dir), load_run(run_dir)
        graphs = first_test_graphs(run, n_graphs).to(run.device)
        with run.autocast():
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
