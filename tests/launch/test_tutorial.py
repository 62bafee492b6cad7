"""The introduction to PyTorch's autograd runs here as written, with only the import lines changed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.assets, pytest.mark.timeout(120)]


def test_prints_what_it_should(assets: Path, run_ranks: Callable[..., subprocess.CompletedProcess]) -> None:
    ended = run_ranks(1, "-m", "distgrad.launch.tutorial", DISTGRAD_ASSETS=str(assets))
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("<generator object Module.parameters at 0x")
    assert lines[1:6] == [
        "tensor([2., 3.], requires_grad=True) tensor([-12.,  65.], grad_fn=<SubBackward0>)",
        "tensor([True, True])",
        "tensor([True, True])",
        "Does `a` require gradients?: False",
        "Does `b` require gradients?: True",
    ]
    names = [line.split() for line in lines[6:]]
    assert len(names) == 62
    assert names[0] == ["conv1.weight", "False"] and names[-2:] == [["fc.weight", "True"], ["fc.bias", "True"]]
    assert sum(flag == "True" for _, flag in names) == 2
    blocks = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    expected = ["conv1.weight", "bn1.weight", "bn1.bias"]
    for block in blocks:
        parts = ["conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias"]
        if block in ("layer2.0", "layer3.0", "layer4.0"):
            parts += ["downsample.0.weight", "downsample.1.weight", "downsample.1.bias"]
        expected += [f"{block}.{part}" for part in parts]
    assert [name for name, _ in names] == [*expected, "fc.weight", "fc.bias"]


def test_runs_in_pytorch_too_with_pytorchs_imports(tmp_path: Path) -> None:
    """The text is PyTorch's: with its own import lines it computes the same there."""
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    import distgrad.launch

    source = (Path(distgrad.launch.__file__).parent / "tutorial.py").read_text()
    part = source.partition("# What backward does")[2].partition("# Finetuning")[0]
    part = part[part.index("\n") :]
    seen: list[str] = []
    exec(
        compile(part, "tutorial", "exec"),
        {"torch": torch, "print": lambda *args: seen.append(" ".join(map(str, args)))},
    )
    ours: list[str] = []
    namespace = {"torch": distgrad, "print": lambda *args: ours.append(" ".join(map(str, args)))}
    exec(compile(part, "tutorial", "exec"), namespace)
    assert ours == seen


test_runs_in_pytorch_too_with_pytorchs_imports = pytest.mark.parity(test_runs_in_pytorch_too_with_pytorchs_imports)
