"""Settings and fixtures of all tests: one thread, shapes checked at run time, and tiny tasks, trunks and objectives."""
# ruff: noqa: E402 - the import hook has to come before the imports that it acts on

import os

os.environ["OMP_WAIT_POLICY"] = "passive"  # a test of two threads would otherwise spin on the core of the other worker
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the machine has few cores and pytest runs several workers

import importlib.util
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jaxtyping
import pytest
import yaml


def shaped_modules() -> list[str]:
    """Return the modules of the package with shapes in annotations: those that import jaxtyping."""
    spec = importlib.util.find_spec("pitfalls")
    root = Path(spec.submodule_search_locations[0])
    files = [path for path in root.rglob("*.py") if "jaxtyping" in path.read_text()]
    return sorted(".".join(("pitfalls", *path.relative_to(root).with_suffix("").parts)) for path in files)


# every annotation such as Int[Tensor, "B P"] of these modules is checked in every call; test_shapes.py proves that it is
jaxtyping.install_import_hook(shaped_modules(), "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pitfalls.experiment.build import make_spec
from pitfalls.models.factory import build_trunk
from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives import NAMES, build_objective, objective_class
from pitfalls.objectives.base import Objective, Spec
from pitfalls.objectives.belief_state import Head
from pitfalls.runs.counts import Count, Evaluation
from pitfalls.schemas import (
    MODEL_SCHEMAS,
    Config,
    GPT2ModelConfig,
    GPTConvModelConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TaskConfig,
    TrainingConfig,
)
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import PathStar

torch.set_num_threads(1)

CONF = Path(__file__).resolve().parents[1] / "conf"
CPU = torch.device("cpu")

TINY_MODEL = GPT2ModelConfig(
    name="tiny",
    architecture="gpt2",
    init_from=None,
    n_layers=2,
    width=20,  # the size of the vocabulary of `task`: one-hot states fit
    n_heads=2,
    mlp_ratio=4,
    activation="gelu",
    weight_init_std=0.3,  # large, so that outputs of untrained trunks differ from token to token
    position_init_std=0.3,
    scaled_residual_init=True,
)

TINY_CONV = GPTConvModelConfig(
    **(vars(TINY_MODEL) | {"name": "tiny_conv", "architecture": "gpt_conv"}),
    conv_kernel=3,
    conv_init_std=0.3,
    qk_norm=True,
    learned_positions=True,
)

TINY_TRAINING = TrainingConfig(
    n_steps=10,
    batch_size=8,
    accumulation=1,
    lr=1e-3,
    warmup_steps=2,
    schedule="constant",
    decay_steps=None,
    final_lr_fraction=0.0,
    weight_decay=0.01,
    beta1=0.9,
    beta2=0.98,
    max_grad_norm=None,
    precision="fp32",
    device="cpu",
    n_threads=1,
    eval_every_steps=5,
    eval_graphs=8,
    probe_graphs=8,
    checkpoint_every_steps=5,
    log_every_steps=1,
    stop_metric=None,
    stop_at=0.99,
    stop_patience_evals=2,
)


def model_preset(name: str) -> ModelConfig:
    """Return a model of ``conf/model``, read as YAML without hydra."""
    data = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    del data["defaults"]
    return MODEL_SCHEMAS[data["architecture"]](**data)


def objective_preset(name: str) -> ObjectiveConfig:
    """Return an objective of ``conf/objective``, read as YAML without hydra."""
    return objective_class(name).Config(**yaml.safe_load((CONF / "objective" / f"{name}.yaml").read_text()))


@torch.no_grad()
def move_vectors(module: nn.Module) -> None:
    """Change all biases and norms. Those of a new model are 0 and 1, so a bias that is left out or misplaced changes nothing."""
    draws = generator(3, "probe")
    for vector in (p for p in module.parameters() if p.dim() == 1):
        vector.add_(0.3 * torch.randn(vector.shape, generator=draws, dtype=vector.dtype))


def spec_of(task: PathStar, trunk: Trunk) -> Spec:
    """Return the sizes of a task and a tiny trunk for an objective."""
    return make_spec(replace(TINY_MODEL, width=trunk.width), task.vocabulary, task, trunk, CPU)


@pytest.fixture(scope="session", name="model_preset")
def _model_preset() -> Callable[[str], ModelConfig]:
    return model_preset


@pytest.fixture(scope="session", name="objective_preset")
def _objective_preset() -> Callable[[str], ObjectiveConfig]:
    return objective_preset


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """Thousands of small files need not survive a power cut. The tests of what happens if one fails replace this again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def impatient() -> Iterator[None]:
    """Make a test fail if it waits for ever, for example at a pipe."""
    before = signal.signal(signal.SIGALRM, lambda *args: pytest.fail("it hangs"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def as_for_users() -> Iterator[None]:
    """Without the checks of types that the tests switch on, and users do not have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def task() -> PathStar:
    """G(2,4) on 10 values: P = 21, L = 4."""
    return PathStar(2, 4, 10)


@pytest.fixture
def batch(task: PathStar) -> Batch:
    """Eight different graphs."""
    return task.sample(8, generator(1, "data"))


@pytest.fixture
def make_trunk(task: PathStar) -> Callable[..., Trunk]:
    """A function that builds a tiny trunk for ``task``. It takes a seed and fields of the model config."""

    def make(seed: int = 0, config: ModelConfig = TINY_MODEL, **changes: object) -> Trunk:
        return build_trunk(
            replace(config, **changes),
            n_tokens=task.vocabulary.size,
            n_positions=task.n_positions,
            generator=generator(seed, "init"),
            device=CPU,
        )

    return make


@pytest.fixture
def trunk(make_trunk: Callable[..., Trunk]) -> Trunk:
    """A tiny trunk in eval mode."""
    return make_trunk().eval()


@pytest.fixture
def make_objective(task: PathStar, trunk: Trunk) -> Callable[..., Objective]:
    """A function that builds an objective by name. It takes a seed, a task and parameters that differ from the preset."""

    def make(name: str, seed: int = 0, task: PathStar = task, **changes: object) -> Objective:
        config = replace(objective_preset(name), **changes)
        return build_objective(config, spec_of(task, trunk), generator(seed, "objective_init"))

    return make


@pytest.fixture(params=NAMES)
def objective_name(request: pytest.FixtureRequest) -> str:
    """Every registered objective in turn."""
    return request.param


@pytest.fixture
def objective(objective_name: str, make_objective: Callable[..., Objective]) -> Objective:
    """Every registered objective in turn."""
    return make_objective(objective_name)


@pytest.fixture
def training() -> TrainingConfig:
    """Ten steps of eight rows."""
    return TINY_TRAINING


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The config of a whole tiny run."""
    return Config(
        task=TaskConfig(degree=2, path_length=4, n_values=10, train_graphs=None, test_graphs=16, targets_per_graph=1),
        model=TINY_MODEL,
        objective=ObjectiveConfig(name="next_token"),
        optimizer=OptimizerConfig(name="adamw"),
        training=TINY_TRAINING,
        seed=0,
        runs_dir=str(tmp_path / "runs"),
        trackers=[],
    )


@pytest.fixture
def loss_of() -> Callable[[Objective, Trunk, Batch], torch.Tensor]:
    """A function: the training loss of a canonical batch, with the objective's random stream of step 0."""

    def loss(objective: Objective, trunk: Trunk, batch: Batch) -> torch.Tensor:
        return objective.training_loss(trunk, batch, step=0, generator=generator(0, "objective")).total

    return loss


# ------------------------------------------------------------------ pretrained models


def random_lm(kind: str, size: int, n_positions: int) -> PreTrainedModel:
    """Return a tiny random model of a family that people fine-tune."""
    torch.manual_seed(0)
    shared = {"vocab_size": size, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1}
    sizes = shared | {"hidden_size": 16, "num_hidden_layers": 2}
    attention = {"intermediate_size": 32, "max_position_embeddings": n_positions}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**shared, n_embd=16, n_layer=2, n_head=2, n_positions=n_positions))
    if kind == "pythia":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, **attention, num_attention_heads=2))
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes, **attention, num_attention_heads=4, num_key_value_heads=2))
    return MambaForCausalLM(MambaConfig(**sizes, state_size=4))


@pytest.fixture(scope="session")
def save_lm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, list[str], int, int], Path]:
    """A function that saves a tiny random model and a tokenizer as save_pretrained does. It returns the folder."""

    def save(kind: str, words: list[str], size: int, n_positions: int) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        random_lm(kind, size, n_positions).save_pretrained(folder)
        rust = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="</s>"))
        rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>"}
        PreTrainedTokenizerFast(tokenizer_object=rust, **specials).save_pretrained(folder)
        return folder

    return save


# ------------------------------------------------------------------ trunks that follow a script


class ScriptCache:
    """The tokens that a scripted trunk has read."""

    tokens: torch.Tensor | None = None

    def get_seq_length(self) -> int:
        return 0 if self.tokens is None else self.tokens.shape[1]


class ScriptedTrunk(Trunk):
    """A trunk whose hidden states are the one-hot vectors of the tokens that ``script(row)`` wants next.

    ``script`` maps a row of tokens, which begins with the prompt, to the next token after each of them. It may also return a
    list of tokens that are equally likely there. The trunk reads tokens in their order and ignores positions and masks. Its
    embeddings are one-hot as well, so it still recognises a token if a little is added to its embedding.
    """

    def __init__(self, task: PathStar, script: Callable[[list[int]], list[int]]) -> None:
        nn.Module.__init__(self)
        self.task, self.script = task, script
        self.modes: list[bool] = []

    @property
    def width(self) -> int:
        return self.task.vocabulary.size

    def embed(self, tokens):
        return 50.0 * nn.functional.one_hot(tokens, self.width).float()

    def norm(self, x):
        return x

    def forward(
        self, tokens_or_embeddings, *, positions=None, mask=None, cache=None, first=0, shared=None, before_last_block=False
    ) -> Hidden:
        self.modes.append(self.training)
        tokens = tokens_or_embeddings
        tokens = tokens.argmax(-1) if tokens.is_floating_point() else tokens
        if cache is not None:
            tokens = tokens if cache.tokens is None else torch.cat([cache.tokens, tokens], 1)
            cache.tokens = tokens
        normed = torch.zeros(*tokens.shape, self.task.vocabulary.size)
        entries = normed.numpy()  # a hundred times faster to set one by one
        for r, row in enumerate(tokens.tolist()):
            for t, wanted in enumerate(self.script(row)):
                entries[r, t, wanted] = 50.0
        normed = normed[:, -tokens_or_embeddings.shape[1] :]
        return Hidden(normed[:, first:], normed[:, first:], normed)

    def logits(self, normed, *, frozen=False):
        return normed

    def new_cache(self, n_tokens: int | None = None) -> ScriptCache:
        return ScriptCache()


@pytest.fixture
def make_scripted() -> Callable[..., Trunk]:
    """The class of trunks that follow a script: (task, script) -> trunk."""
    return ScriptedTrunk


@pytest.fixture
def make_oracle(task: PathStar) -> Callable[[Objective, Batch], Trunk]:
    """A function that makes a trunk which knows the (viewed) targets of a batch, and is confidently wrong about the prompt.

    For a method that fills in masked tokens, the trunk predicts each token at its own position instead of one before.
    """

    def make(objective: Objective, batch: Batch) -> Trunk:
        viewed = objective.view(batch)
        known = {tuple(p): t for p, t in zip(viewed.prompt.tolist(), viewed.target.tolist(), strict=True)}
        pad = task.vocabulary.id("<pad>")

        def script(row: list[int]) -> list[int]:
            answer = known[tuple(row[: task.prompt_length])]
            fills_in = "confidence" in objective.decoders
            wanted = [pad] * (task.prompt_length - (0 if fills_in else 1)) + answer
            return (wanted + [pad] * len(row))[: len(row)]

        if isinstance(head := getattr(objective, "head", None), Head):  # of two states, the prefix' one passes
            nn.init.zeros_(head.down.weight)
        return ScriptedTrunk(task, script)

    return make


@pytest.fixture
def make_cheater() -> Callable[..., Trunk]:
    """A function that makes a Clever Hans: it copies the start, takes any arm, and then follows the edges.

    ``arm(goal_hop, hops)`` picks the first hop. By default it is the one that is first in the edge list.
    """

    def make(task: PathStar, arm: Callable[[int, list[int]], int] = lambda goal_hop, hops: hops[0]) -> Trunk:
        def script(row: list[int]) -> list[int]:
            prompt = torch.tensor([row[: task.prompt_length]])
            edges = task.edges(prompt)[0].tolist()
            start, goal = int(task.start(prompt)), int(task.goal(prompt))
            child = {a: b for a, b in edges if a != start}
            parent = {b: a for a, b in edges}
            hop = goal
            while parent[hop] != start:
                hop = parent[hop]
            child[start] = arm(hop, [b for a, b in edges if a == start])
            wanted = [start] * task.prompt_length + [child.get(token, start) for token in row[task.prompt_length :]]
            return wanted[: len(row)]

        return ScriptedTrunk(task, script)

    return make


@pytest.fixture
def make_player() -> Callable[..., Trunk]:
    """A function that makes one of the three trunks that every probe has to distinguish.

    A ``solver`` writes the right path, whatever tokens come before. For a ``cheater`` the children of the start are equally
    likely, and then it follows the edges. With ``copies_goal`` it copies its last token from the prompt. For a ``guesser`` all
    tokens are equally likely everywhere.
    """

    def make(kind: str, task: PathStar, copies_goal: bool = False) -> Trunk:
        n_prompt, n_target, everything = task.prompt_length, task.target_length, list(range(task.vocabulary.size))

        @cache
        def read(tokens: tuple[int, ...]) -> tuple[int, int, list[int], dict[int, list[int]]]:
            prompt = torch.tensor([tokens])
            edges, start, goal = task.edges(prompt)[0].tolist(), int(task.start(prompt)), int(task.goal(prompt))
            parent, path = {b: a for a, b in edges}, [goal]
            while path[0] != start:
                path.insert(0, parent[path[0]])
            children = {node: [b for a, b in edges if a == node] or [node] for node in range(task.n_values)}
            return start, goal, path, children

        def script(row: list[int]) -> list[list[int]]:
            start, goal, path, children = read(tuple(row[:n_prompt]))
            if kind == "solver":
                wanted = [[start]] * (n_prompt - 1) + [[node] for node in path]
            elif kind == "guesser":
                wanted = [everything] * len(row)
            else:
                answer = row[n_prompt:]
                wanted = [[start]] * n_prompt + [children.get(node, everything) for node in answer]
                if copies_goal and len(answer) >= n_target - 1:
                    wanted[n_prompt - 1 + n_target - 1] = [goal]
            return (wanted + [everything] * len(row))[: len(row)]

        return ScriptedTrunk(task, script)

    return make


@pytest.fixture
def make_evaluation() -> Callable[[float], Evaluation]:
    """A function: an evaluation of 100 rows of length 4 with a given share of exact matches."""

    def make(share: float) -> Evaluation:
        count, rest = Count(round(100 * share), 100), Count(100 - round(100 * share), 100)
        return Evaluation(count, count, [count] * 4, [count] * 4, count, rest, Count(0, 100), "autoregressive", Count(0, 100))

    return make


class Done(NamedTuple):
    """The end of a script: status, output and errors."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_script(monkeypatch, capsys) -> Iterator[Callable[..., Done]]:
    """A function that runs a script in this process, where torch is imported already: ``run_script("evaluate", RUN)``."""

    def run(name: str, *arguments: object) -> Done:
        path = str(CONF.parent / "scripts" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        status = None
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            status = end.code
        return Done(status or 0, *capsys.readouterr())

    yield run
    torch.set_num_threads(1)
