"""Random streams: named, indexed, independent of each other and of the global generators."""

import contextlib
import itertools
from pathlib import Path
from typing import get_args

import pytest
import torch

from pitfalls.seeding import Stream, derive_seed, forked_rng, generator


def draw(*args: object) -> list[float]:
    return torch.rand(4, generator=generator(*args)).tolist()


def test_a_stream_repeats_and_every_argument_matters():
    """Guards against two streams that share their numbers, for instance an index or a name that is not hashed."""
    assert draw(1, "data", 17) == draw(1, "data", 17)
    seeds = {
        derive_seed(root, stream, index)
        for root, stream, index in itertools.product((0, 1, 11, 111), get_args(Stream), (0, 1, 11, 111))
    }
    assert len(seeds) == 4 * len(get_args(Stream)) * 4


def test_seed_zero_is_a_seed():
    """Guards against `if seed:`."""
    assert draw(0, "init") == draw(0, "init")
    assert draw(0, "init") != draw(1, "init")


def test_seeds_are_the_same_on_every_machine_and_in_every_version():
    """Guards against a derivation by `hash`, which differs between processes. A changed number here breaks every old record."""
    assert derive_seed(0, "data", 17) == 1474196154172392053
    assert derive_seed(3, "init") == derive_seed(3, "init", 0) == 636265883874923026


def test_seeds_fit_torch():
    seeds = [derive_seed(0, "data", i) for i in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = draw(5, "order", 2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert draw(5, "order", 2) == first


def test_neighbouring_indices_are_uncorrelated():
    rows = torch.stack([torch.rand(2000, generator=generator(0, "data", i), dtype=torch.float64) for i in range(8)])
    off_diagonal = torch.corrcoef(rows)[~torch.eye(8, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 5 / 2000**0.5


@pytest.mark.parametrize("stream", get_args(Stream))
def test_every_named_stream_makes_a_generator(stream: str):
    assert generator(0, stream).initial_seed() == derive_seed(0, stream)


# ------------------------------------------------------------------ the global generators


@pytest.fixture
def eight_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pretend that the machine has eight GPUs. The list takes the numbers of those whose generator is saved."""
    saved: list[int] = []

    def get(device: torch.device | int) -> torch.Tensor:
        saved.append(torch.device("cuda", device).index if isinstance(device, int) else device.index)
        return torch.zeros(16, dtype=torch.uint8)

    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", get)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: None)
    return saved


@pytest.mark.parametrize(("device", "touched"), [("cpu", []), ("cuda:3", [3])])
def test_a_fork_touches_no_other_gpu(eight_gpus: list[int], device: str, touched: list[int]):
    """Guards against a bare `fork_rng`: it starts all GPUs of a machine, and warns, which is an error in these tests."""
    before = torch.get_rng_state()
    with forked_rng(device, seed=5):
        first = torch.rand(3)
    assert torch.equal(first, torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(torch.get_rng_state(), before)
    assert eight_gpus == touched
    with pytest.warns(UserWarning, match="8 available devices"), torch.random.fork_rng(device_type="cuda"):
        pass  # the stand-in is one: a bare fork warns here
    assert eight_gpus == [*touched, *range(8)]


def test_a_fork_without_a_seed_goes_on():
    torch.manual_seed(7)
    with forked_rng():
        within = torch.rand(3)
    assert torch.equal(torch.rand(3), within)


def test_the_global_generators_are_forked_in_one_place():
    """Guards against the next bare `fork_rng`."""
    root = Path(__file__).resolve().parents[1]
    files = [path for folder in ("src", "benchmarks", "scripts") for path in (root / folder).rglob("*.py")]
    assert {path.name for path in files if "fork_rng(" in path.read_text()} == {"seeding.py"}
