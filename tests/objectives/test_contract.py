"""The contract that every training objective must satisfy. A new file in ``objectives/`` is tested by this one at once."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch.testing import assert_close

from pitfalls.evaluation import decoding
from pitfalls.experiment.build import build
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.objectives import NAMES, build_objective, check_objective, objective_class
from pitfalls.objectives.base import HorizonConfig, Loss, Objective
from pitfalls.objectives.next_token import NextToken
from pitfalls.objectives.reversed import Reversed
from pitfalls.runs.counts import FIRST_HOP
from pitfalls.schemas import ConfigError, ObjectiveConfig, PretrainedModelConfig
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import PathStar
from tests.conftest import model_preset
from tests.small_models import SIZES, small_preset

FORCED = [name for name in NAMES if objective_class(name).forced_logits is not Objective.forced_logits]
"""Objectives with a teacher-forced reading."""
BLIND = {"teacherless"}
"""Objectives whose forced reading reads no target token."""
STRENGTHS = ("weight", "kl_weight", "rate")
"""Parameters whose value 0 turns an objective into next token."""
ADDED = [
    name
    for name in NAMES
    if issubclass(objective_class(name), NextToken)
    and {field.name for field in fields(objective_class(name).Config)} & set(STRENGTHS)
]
"""Objectives that are next token with a loss or with other inputs added."""
MAMBAS = {"mamba_tiny": {"n_layers": 1, "width": 16}, "mamba2_tiny": {"n_layers": 1, "width": 16, "head_dim": 8}}
"""Small sizes of our own recurrent trunks, by preset."""


def loss(objective: Objective, trunk, batch: Batch, seed: int = 0) -> Loss:
    return objective.training_loss(trunk, batch, step=500, generator=generator(seed, "objective"))


def canonical(objective_name: str, answer: torch.Tensor) -> torch.Tensor:
    """Return the positions of an answer that mean something. The objective first_hop copies the start from the prompt."""
    return answer[:, : FIRST_HOP + 1] if objective_name == "first_hop" else answer


# ------------------------------------------------------------------ the loss


def test_the_loss_is_finite_and_reaches_every_parameter(objective, make_trunk, batch):
    """Guards against parameters that are allocated and not used, detached, or left out of the optimizer.

    There is no weight decay, which would move any parameter. There are two steps, because a part may get no gradient until
    another part has left zero.
    """
    trunk = make_trunk().train()
    modules = torch.nn.ModuleDict({"trunk": trunk, "objective": objective})
    before = {name: p.detach().clone() for name, p in modules.named_parameters()}
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-2, weight_decay=0.0)
    for seed in (0, 1):
        result = loss(objective, trunk, batch, seed)
        assert result.total.isfinite()
        optimizer.zero_grad()
        result.total.backward()
        optimizer.step()
    assert len(before) > 20
    assert [name for name, p in modules.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert [name for name, p in modules.named_parameters() if torch.equal(p, before[name])] == []


def test_the_total_is_the_sum_of_the_parts(objective, trunk, batch):
    """Terms are weighted, so the log shows what is minimised."""
    result = loss(objective, trunk, batch)
    assert result.parts
    assert_close(torch.stack(list(result.parts.values())).sum(), result.total)
    assert result.total.shape == ()


def test_the_loss_is_a_mean_over_rows(objective, trunk, batch):
    """Guards against a sum over rows. Accumulation of micro-batches and training on several processes need a mean."""
    draws = [float(loss(objective, trunk, batch, seed).total.detach()) for seed in (0, 1)]
    if draws[0] != draws[1]:  # it draws per row: compare averages over many draws
        rows = [
            sum(float(loss(objective, trunk, b, seed).total.detach()) for seed in range(30)) / 30
            for b in (batch, Batch(batch.prompt.repeat(4, 1), batch.target.repeat(4, 1)))
        ]
        assert rows[0] == pytest.approx(rows[1], rel=0.15)
    else:
        halves = [loss(objective, trunk, batch.rows(i, i + 4)).total for i in (0, 4)]
        assert_close(torch.stack(halves).mean(), loss(objective, trunk, batch).total)


def test_reading_the_edges_of_a_graph_once_changes_nothing(objective, make_trunk, task):
    """Guards against rows that were shuffled, or lost their first tokens, before a pass that shares these tokens."""
    pairs = task.sample(4, generator(1, "data"), targets_per_graph=2)
    results = []
    for rows in (pairs, pairs._replace(shared=None)):
        trunk = make_trunk()
        objective.zero_grad()
        result = loss(objective, trunk, rows)
        result.total.backward()
        forced = objective.forced_logits(trunk, objective.view(rows))
        results.append([result.total, forced, *(p.grad.clone() for m in (trunk, objective) for p in m.parameters())])
    for ours, reference in zip(*results, strict=True):
        assert_close(ours, reference, rtol=1e-4, atol=1e-5)


def test_the_random_stream_is_the_only_randomness(objective, trunk, batch):
    """Guards against draws from the global generator: equal streams give equal losses."""
    torch.manual_seed(0)
    first = loss(objective, trunk, batch).total
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(loss(objective, trunk, batch).total, first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_added_to_next_token_can_be_turned_off(objective, objective_name):
    """Guards against a method that is never compared with its baseline, because the tests do not know the name of its weight."""
    if isinstance(objective, NextToken) and type(objective).Config is not ObjectiveConfig:
        assert objective_name in ADDED, f"{type(objective).Config.__name__}: call its weight one of {', '.join(STRENGTHS)}"


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *((name, {}) for name in ADDED),
        ("multi_token", {"heads": "on_top"}),
        ("sequential_multi_token", {"sees": "separator"}),
        ("sequential_multi_token", {"sees": "answer"}),
        ("next_latent", {"state": "pre_norm"}),
    ],
)
def test_without_its_addition_it_is_next_token_bit_for_bit(make_objective, make_trunk, batch, name, variant):
    """Guards against a comparison with a wrong baseline: loss and every gradient of the trunk are equal.

    Next token reads no states of the prompt, and a pass without them rounds differently. So here it reads the same states as
    its rival.
    """
    keys = {field.name for field in fields(objective_class(name).Config)}
    off = {key: 0 for key in STRENGTHS if key in keys}
    results = []
    rival, plain = make_objective(name, **off, **variant), make_objective("next_token")
    plain.reads_prompt_states = rival.reads_prompt_states
    for objective in (rival, plain):
        trunk = make_trunk()
        result = loss(objective, trunk, batch)
        result.total.backward()
        results.append([result.total, *(p.grad for p in trunk.parameters())])
    for ours, reference in zip(*results, strict=True):
        if name == "mutor":  # its registers make the matrices of the pass larger, so that rounding differs
            assert_close(ours, reference, rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(ours, reference)


@pytest.mark.parametrize("name", [name for name in ADDED if objective_class(name).auxiliary is not NextToken.auxiliary])
def test_what_is_added_neither_drowns_next_token_nor_vanishes(name):
    """Guards against a sum where a mean is meant. A bag of words, summed over the vocabulary, once prevented learned lookups.

    Compared are sizes of gradients on the bench's trunk at the start. The largest ratio is 4, of heads whose losses are summed.
    """
    bench = build(resolve(compose(["experiment=objectives", "task=g2_5", f"objective={name}", "training.precision=fp32"])))
    parts = loss(bench.objective, bench.trunk, bench.task.sample(30, generator(1, "data"))).parts
    added = torch.stack([part for key, part in parts.items() if key != "next_token"]).sum()

    def size(part: torch.Tensor) -> float:
        gradients = torch.autograd.grad(part, list(bench.trunk.parameters()), retain_graph=True, allow_unused=True)
        return math.sqrt(sum(g.square().sum().item() for g in gradients if g is not None))

    assert 0.02 < size(added) / size(parts["next_token"]) < 6


@pytest.mark.parametrize("name", ADDED)
def test_with_its_addition_it_is_not(make_objective, trunk, batch, name):
    """Shows that the previous test can fail."""
    with_it = [loss(make_objective(name), trunk, batch, seed).total for seed in range(4)]  # trelawney may draw none
    assert any(not torch.equal(total, loss(make_objective("next_token"), trunk, batch).total) for total in with_it)


def test_every_draw_has_the_same_parts(objective, trunk, batch):
    """Guards against micro-batches with different terms, so that the log shows only some of them."""
    names = {tuple(loss(objective, trunk, batch, seed).parts) for seed in range(8)}
    assert len(names) == 1


def test_the_loss_stands_bf16_autocast(objective, make_trunk, batch):
    """Guards against weights without a gradient after a pass without gradients (as on a GPU), and infinite gradients."""
    trunk = make_trunk().train()
    with torch.autocast("cpu", torch.bfloat16):
        total = loss(objective, trunk, batch).total
    total.backward()
    assert total.dtype == torch.float32
    assert [name for name, p in trunk.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize(("degree", "length"), [(1, 4), (2, 2), (2, 3), (3, 3)])
def test_the_smallest_graphs_train_or_are_refused(config, objective_preset, objective_name, degree: int, length: int):
    """Guards against means over nothing and empty slices, which only show later as a NaN. Such graphs are refused beforehand."""
    small = replace(config.task, degree=degree, path_length=length, n_values=60, test_graphs=4)
    config = replace(config, task=small, objective=objective_preset(objective_name))
    try:
        resolve(config)
    except ConfigError as error:
        assert (objective_name, length) == ("trelawney", 2), str(error)  # noqa: PT017
        return
    built = build(config)
    batch = built.task.sample(4, generator(1, "data"))
    for seed in range(4):
        total = loss(built.objective, built.trunk, batch, seed).total
        assert total.isfinite()
        total.backward()
    answer = decoding.decode(built.trunk, built.objective, batch.prompt, length)
    assert answer.shape == batch.target.shape


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_pretrained_trunk_with_more_tokens_than_the_task(config, save_lm, objective_preset, objective_name, dtype: str):
    """Guards against the size of the task's vocabulary where the model's is meant, and parameters in another precision."""
    words = ["<s>", "</s>", *map(str, range(10)), *("|/=$_#[].;"), *(chr(97 + i) * 2 for i in range(20))]
    folder = save_lm("llama", words, len(words), 64)
    model = PretrainedModelConfig(
        name="llama", architecture="pretrained", init_from=None, source=str(folder), revision=None, dtype=dtype, new_tokens=False
    )
    built = build(replace(config, model=model, objective=objective_preset(objective_name)))
    batch = built.task.sample(4, generator(1, "data"))
    result = loss(built.objective, built.trunk, batch)
    result.total.backward()
    assert result.total.isfinite()
    assert [name for name, p in built.objective.named_parameters() if p.grad is None] == []
    assert decoding.decode(built.trunk, built.objective, batch.prompt, 4).shape == batch.target.shape


# ------------------------------------------------------------------ readings and answers


def test_view_and_unview_are_inverse(objective, batch):
    objective.check_view(batch)
    viewed = objective.view(batch)
    assert torch.equal(objective.unview(viewed.target), batch.target)
    assert torch.equal(viewed.prompt, batch.prompt)
    assert viewed.target.shape[1] == objective.written_length(batch.target.shape[1])
    again = objective.view(Batch(batch.prompt, objective.unview(viewed.target)))
    assert torch.equal(again.target, viewed.target)


@pytest.mark.parametrize("name", FORCED)
def test_forced_logits_depend_on_earlier_tokens_only(make_objective, trunk, batch, name):
    """Guards against a forced accuracy that has seen its own answer."""
    objective = make_objective(name)
    viewed = objective.view(batch)
    before = objective.forced_logits(trunk, viewed)
    assert before.shape == (*viewed.target.shape, objective.spec.vocabulary.size)
    for i in range(viewed.target.shape[1]):
        scrambled = viewed.target.clone()
        scrambled[:, i:] = (scrambled[:, i:] + 3) % 10
        after = objective.forced_logits(trunk, Batch(viewed.prompt, scrambled))
        assert torch.equal(after[:, : i + 1], before[:, : i + 1])
        if name not in BLIND:
            assert not torch.allclose(after[:, i + 1 :], before[:, i + 1 :]) or i + 1 == viewed.target.shape[1]


def procedures() -> list[tuple[str, str]]:
    return [(name, procedure) for name in NAMES for procedure in objective_class(name).decoders]


@pytest.mark.parametrize(("name", "procedure"), procedures())
def test_answers_have_the_shape_of_targets(make_objective, trunk, batch, name, procedure):
    """Every procedure that an objective names, greedy and sampled, gives tokens of the vocabulary."""
    objective = make_objective(name)
    for draws in (None, generator(0, "decode")):
        answer = decoding.decode(trunk, objective, batch.prompt, 4, procedure=procedure, generator=draws)
        assert answer.shape == batch.target.shape
        assert answer.dtype == torch.long
        assert ((answer >= 0) & (answer < objective.spec.vocabulary.size)).all()


@pytest.mark.parametrize(("name", "procedure"), procedures())
def test_an_answer_depends_on_its_own_prompt_alone(make_objective, make_trunk, batch, name, procedure):
    """Guards against a decoder that looks at the targets of training, at other rows, or at what it decoded before."""
    objective, trunk = make_objective(name), make_trunk(weight_init_std=1.0).eval()
    together = decoding.decode(trunk, objective, batch.prompt, 4, procedure=procedure)
    loss(objective, trunk, Batch(batch.prompt, batch.target.roll(1, 0)))
    alone = [decoding.decode(trunk, objective, batch.prompt[i : i + 1], 4, procedure=procedure) for i in range(8)]
    assert torch.equal(torch.cat(alone), together)
    assert len(together.unique(dim=0)) > 1, "an untrained trunk that always says the same would prove nothing"


BEYOND_A_SCRIPT = {"blockwise", "tree", "goal_first", "lookahead"}
"""Procedures that need heads which also know the target, or that do not read it in order. None is a method's first."""


@pytest.mark.parametrize("turned", [False, True])
def test_an_oracle_decodes_to_the_target(objective, objective_name, make_oracle, batch, turned: bool):
    """Guards against answers in the order of training: they always come out from start to goal."""
    if turned:  # the same method on the reversed path
        kind = type(objective)
        plain = {"view": Reversed.view, "unview": Reversed.unview, "written_length": Objective.written_length}
        objective.__class__ = type("Turned", (kind,), plain)
    oracle = make_oracle(objective, batch)
    if turned and objective_name == "first_hop":  # it copies the start from the prompt: nothing to turn round
        return
    for procedure in set(objective.decoders) - BEYOND_A_SCRIPT:
        answer = decoding.decode(oracle, objective, batch.prompt, 4, procedure=procedure)
        assert torch.equal(canonical(objective_name, answer), canonical(objective_name, batch.target)), procedure


def test_eight_graphs_can_be_overfitted(objective, objective_name, make_trunk, make_objective, batch):
    """The whole method, end to end: trained on eight rows, its own decoder answers all of them."""
    trunk = make_trunk(weight_init_std=0.1, position_init_std=0.1).train()
    optimizer = torch.optim.AdamW([*trunk.parameters(), *objective.parameters()], lr=1e-2, weight_decay=0.0)
    wanted = canonical(objective_name, batch.target)
    for step in range(400):
        result = objective.training_loss(trunk, batch, step=step, generator=generator(0, "objective", step))
        optimizer.zero_grad()
        result.total.backward()
        optimizer.step()
        if step % 10 == 9:
            trunk.eval()
            answer = decoding.decode(trunk, objective, batch.prompt, 4)
            trunk.train()
            if torch.equal(canonical(objective_name, answer), wanted):
                return
    pytest.fail(f"{(answer == batch.target).float().mean(0).tolist()} after 400 steps")


# ------------------------------------------------------------------ config and task


LONGEST = {name: math.inf if name == "mutor" else 4 for name in NAMES if issubclass(objective_class(name).Config, HorizonConfig)}
"""Longest horizon that an objective accepts on paths of four nodes. Registers end with the path."""


@pytest.mark.parametrize(("degree", "length"), [(1, 2), (2, 2), (2, 3), (2, 4), (5, 5)])
def test_a_preset_goes_with_every_task_but_where_the_check_says_so(objective_preset, objective_name, degree: int, length: int):
    """Guards against a check that looks at nothing, and one that refuses what trains."""
    preset, task = objective_preset(objective_name), PathStar(degree, length, 50)
    if (objective_name, length) == ("trelawney", 2):
        with pytest.raises(ConfigError, match=r"^task.path_length=2: objective=trelawney needs at least 3$"):
            check_objective(preset, task)
    else:
        check_objective(preset, task)


@pytest.mark.parametrize("name", LONGEST)
@pytest.mark.parametrize("horizon", [2, 4, 5, 9])
def test_a_horizon_beyond_the_path_is_refused_before_any_compute(config, objective_preset, name: str, horizon: int):
    """Guards against a config that is resolved without this check."""
    given = replace(objective_preset(name), horizon=horizon)
    config = replace(config, objective=given)
    if horizon <= LONGEST[name]:
        assert build(resolve(config)).objective.horizon == min(horizon, 4)
        return
    with pytest.raises(ConfigError, match=rf"^objective.horizon={horizon}: at most 4 for this task.path_length$"):
        resolve(config)


@pytest.mark.parametrize("name", [name for name in LONGEST if LONGEST[name] == 4])
def test_an_objective_with_a_check_of_its_own_keeps_the_check_of_the_horizon(monkeypatch, objective_preset, name: str):
    """Guards against a silently lost check of the horizon, because a subclass overrides `check` and does not call super."""
    asked: list[PathStar] = []
    monkeypatch.setattr(objective_class(name), "check", classmethod(lambda cls, config, task: asked.append(task)))
    check_objective(replace(objective_preset(name), horizon=4), PathStar(2, 4, 10))
    with pytest.raises(ConfigError, match="^objective.horizon=5: at most 4"):
        check_objective(replace(objective_preset(name), horizon=5), PathStar(2, 4, 10))
    assert len(asked) == 1


def test_the_horizon_is_a_plain_query(objective_preset, objective_name):
    """Guards against validation inside a query, which has to return a number of tokens for any length."""
    kind, preset = objective_class(objective_name), objective_preset(objective_name)
    horizons = [kind.horizon_for(preset, length) for length in range(2, 12)]
    assert all(1 <= horizon <= length for horizon, length in zip(horizons, range(2, 12), strict=True))
    if objective_name in LONGEST:
        assert kind.horizon_for(replace(preset, horizon=3), 2) == (2 if objective_name == "mutor" else 3)


# ------------------------------------------------------------------ what it is built from


def test_the_trunk_of_a_seed_is_the_same_for_every_objective(config, objective_preset, objective_name):
    """Guards against comparisons between objectives that start from different trunks."""
    own = build(replace(config, objective=objective_preset(objective_name))).trunk.state_dict()
    for seed, same in ((config.seed, True), (config.seed + 1, False)):
        plain = build(replace(config, seed=seed, objective=objective_preset("next_token"))).trunk.state_dict()
        assert own.keys() == plain.keys()
        assert all(torch.equal(own[key], plain[key]) for key in own) == same


def test_extra_parameters_are_drawn_from_the_stream_of_the_objective(make_objective, objective_name):
    """Guards against initial weights that depend on what was drawn before, or that disturb what is drawn after."""
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, other = make_objective(objective_name).state_dict(), make_objective(objective_name, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    again = make_objective(objective_name).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    matrices = [key for key in first if first[key].dim() > 1]
    assert all(not torch.equal(first[key], other[key]) for key in matrices)


def test_a_horizon_is_stated(objective, batch):
    assert 1 <= objective.horizon <= batch.target.shape[1]


@pytest.mark.parametrize("model", [*MAMBAS, *SIZES])
def test_another_trunk_is_trained_and_decoded_or_refused(config, objective_preset, objective_name, model):
    """Every method runs on every kind of trunk. On a recurrent one, methods with own masks or positions are refused at once."""
    small = small_preset(model) if model in SIZES else replace(model_preset(model), **MAMBAS[model])
    config = replace(config, model=small, objective=objective_preset(objective_name))
    recurrent = model not in ("llama_tiny", "qwen3_tiny")
    if recurrent and objective_class(objective_name).needs:
        with pytest.raises(ConfigError, match=rf"objective={objective_name} sets .* and model={model} is recurrent.*gpt_tiny"):
            resolve(config)
        with pytest.raises(ConfigError, match="is recurrent"):
            build(config)
        return
    resolve(config)
    built = build(config)
    batch = built.task.sample(4, generator(1, "data"))
    modules = torch.nn.ModuleDict({"trunk": built.trunk.train(), "objective": built.objective})
    before = {name: p.detach().clone() for name, p in modules.named_parameters()}
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-2, weight_decay=0.0)
    for seed in (0, 1):
        optimizer.zero_grad()
        loss(built.objective, built.trunk, batch, seed).total.backward()
        optimizer.step()
    assert [name for name, p in modules.named_parameters() if torch.equal(p, before[name])] == []
    built.trunk.eval()
    for procedure in built.objective.decoders:
        if recurrent and decoding.PROCEDURES[procedure].needs_masks:
            with pytest.raises(ValueError, match="is recurrent and takes no mask"):
                decoding.decode(built.trunk, built.objective, batch.prompt, 4, procedure=procedure)
            continue
        answer = decoding.decode(built.trunk, built.objective, batch.prompt, 4, procedure=procedure)
        assert answer.shape == batch.target.shape


# ------------------------------------------------------------------ the folder is the registry


def test_decoders_are_known_procedures(objective, objective_name):
    assert objective.decoders
    assert set(objective.decoders) <= set(decoding.PROCEDURES)
    assert type(objective) is objective_class(objective_name)


def test_every_objective_has_a_preset_and_every_preset_an_objective(pytestconfig):
    folder = pytestconfig.rootpath / "conf" / "objective"
    assert {path.stem for path in folder.glob("*.yaml")} == set(NAMES)


def test_an_unknown_objective_is_refused_with_the_choices(make_objective):
    with pytest.raises(ConfigError, match=f"objective.name=next_tokn: choose one of {NAMES[0]}, {NAMES[1]}"):
        build_objective(ObjectiveConfig(name="next_tokn"), make_objective("next_token").spec, generator(0, "objective_init"))


@pytest.mark.parametrize("name", ["__init__", "base", "../metrics", "os"])
def test_a_config_cannot_name_other_code(name):
    with pytest.raises(ConfigError, match="choose one of"):
        objective_class(name)


def test_a_file_with_two_objectives_is_told(monkeypatch: pytest.MonkeyPatch):
    """Guards against the first of two classes, taken without a word."""
    second = type("Second", (NextToken,), {"__module__": NextToken.__module__})
    monkeypatch.setattr("pitfalls.objectives.next_token.Second", second, raising=False)
    with pytest.raises(ConfigError, match="next_token.py has 2 subclasses of Objective; it needs exactly one"):
        objective_class("next_token")
