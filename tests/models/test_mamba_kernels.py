"""The functions that a Mamba calls: the device of the tensors decides, not the packages that can be imported."""

import inspect
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from pitfalls.models import hf_internals
from pitfalls.models.cpu.causal_conv import causal_conv1d
from pitfalls.models.cpu.chunk_scan import chunk_scan
from pitfalls.models.cpu.selective_scan import selective_scan
from pitfalls.models.mamba import COMPILED_KERNELS, require_gpu_kernels
from pitfalls.seeding import generator


class OnGpu(SimpleNamespace):
    """An object that takes the place of a CUDA tensor."""

    is_cuda = True


def test_the_device_of_the_first_argument_decides():
    dispatch = hf_internals.ByDevice(lambda *args, **kwargs: ("gpu", args, kwargs), lambda *args, **kwargs: ("cpu", args, kwargs))
    x, gpu = torch.zeros(1), OnGpu()
    assert dispatch(gpu, 2, key=3) == ("gpu", (gpu, 2), {"key": 3})
    assert dispatch(x, 2, key=3) == ("cpu", (x, 2), {"key": 3})


def test_every_kernel_function_of_the_installed_transformers_is_dispatched():
    """Guards against an upgrade that renames or adds one: it would run slowly, or crash on a machine with mamba-ssm."""
    hf_internals.dispatch_mamba_kernels()
    for module, names in hf_internals.DISPATCHED.items():
        source = inspect.getsource(module)
        declared = source.count("@use_kernel_func_from_hub_with_fallback(")
        assert declared == len(names) == 5, module.__name__
        for name in names:
            assert isinstance(getattr(module, name), hf_internals.ByDevice), name


def test_installing_twice_changes_nothing():
    """Guards against a dispatch of a dispatch, whose GPU side would be ours."""
    hf_internals.dispatch_mamba_kernels()
    places = [(module, name) for module, names in hf_internals.DISPATCHED.items() for name in names]
    before = [getattr(module, name) for module, name in places]
    hf_internals.dispatch_mamba_kernels()
    assert all(getattr(module, name) is bound for (module, name), bound in zip(places, before, strict=True))


def test_our_functions_are_the_ones_called_on_cpus():
    hf_internals.dispatch_mamba_kernels()
    found = {name: getattr(module, name).elsewhere for module, names in hf_internals.DISPATCHED.items() for name in names}
    assert found["mamba_selective_scan"] is selective_scan
    assert found["mamba2_chunk_scan"] is chunk_scan
    assert found["causal_conv1d_fn"] is causal_conv1d
    assert not hasattr(found["mamba_selective_state_update"], "__wrapped__"), "transformers' torch function, unwrapped"


def fused(*args: object, **kwargs: object) -> None:
    raise AssertionError("Expected u.is_cuda() to be true")


@pytest.mark.parametrize("name", ["mamba_tiny", "mamba2_tiny"])
def test_cpu_tensors_never_reach_a_kernel_that_happens_to_be_importable(make_trunk, model_preset, monkeypatch, name: str):
    """Guards against transformers' own choice, by importability: with mamba-ssm installed no Mamba would run on a CPU."""
    trunk = make_trunk(config=model_preset(name), n_layers=1, width=32)
    for module, names in hf_internals.DISPATCHED.items():
        for function in names:
            monkeypatch.setattr(getattr(module, function), "on_gpu", fused)
    tokens = torch.randint(0, 10, (2, 7), generator=generator(0, "probe"))
    for mode in (trunk.train(), trunk.eval()):
        states = mode(tokens).normed
    cache = trunk.new_cache()
    trunk(tokens[:, :-1], cache=cache)
    assert_close(trunk(tokens[:, -1:], cache=cache).normed[:, 0], states[:, -1], atol=1e-5, rtol=1e-5)


def test_a_gpu_without_the_compiled_kernels_is_refused(monkeypatch):
    """Guards against mamba-ssm that imports but computes nothing (its CUDA-less wheel), and a run that is slow in silence."""
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    with pytest.raises(ValueError, match=r"training.device=cuda: .*selective_scan_cuda cannot be imported .*extra \[cuda\]"):
        require_gpu_kernels()


def test_a_gpu_with_the_compiled_kernels_is_accepted(monkeypatch):
    for extension in COMPILED_KERNELS:
        monkeypatch.setitem(sys.modules, extension, SimpleNamespace())
    require_gpu_kernels()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["mamba_tiny", "mamba2_tiny"])
def test_on_a_gpu_the_fused_kernels_run_and_agree(make_trunk, model_preset, name: str):
    """Fails on a silent fallback: the profiler has to have seen mamba-ssm's kernels. Tolerances are upstream's own.

    Not yet run on a GPU.
    """
    require_gpu_kernels()
    trunk = make_trunk(config=model_preset(name))
    tokens = torch.randint(0, 10, (2, 24), generator=generator(0, "probe"))
    expected = trunk.train()(tokens).normed
    trunk.to("cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        hidden = trunk(tokens.to("cuda")).normed
        hidden.sum().backward()
    seen = " ".join(event.key for event in profile.key_averages())
    wanted = ("selective_scan_fwd", "selective_scan_bwd") if name == "mamba_tiny" else ("_chunk_scan_fwd", "_chunk_scan_bwd")
    assert all(kernel in seen for kernel in (*wanted, "causal_conv1d")), seen
    assert_close(hidden.cpu(), expected, rtol=6e-4, atol=2e-3)
