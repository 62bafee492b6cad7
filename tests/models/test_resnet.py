from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.errors import ConfigError
from distgrad.models import MODELS, ResNet, ResNet18_Weights, ResNet34_Weights, get_weight, resnet18, resnet34
from distgrad.models.resnet import BasicBlock, _verified


@pytest.fixture(scope="module")
def model() -> ResNet:
    distgrad.manual_seed(0)
    return resnet18()


def test_names_and_sizes(model: ResNet) -> None:
    state = model.state_dict()
    assert len(state) == 122 and len(list(model.named_parameters())) == 62
    assert list(state)[:6] == [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
    ]
    assert list(state)[-2:] == ["fc.weight", "fc.bias"]
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_689_512
    assert sum(p.numel() for p in ResNet(BasicBlock, [3, 4, 6, 3]).parameters()) == 21_797_672


def test_initial_values(model: ResNet) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            values = module.weight.detach().numpy()
            tolerance = 4 / np.sqrt(2 * values.size)
            assert abs(values.std() / np.sqrt(2 / fan_out) - 1) < tolerance, name
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    assert np.abs(model.fc.weight.detach().numpy()).max() <= 1 / np.sqrt(512)
    assert (ResNet(BasicBlock, [1, 1, 1, 1]).layer1[0].bn2.weight == 1).all()
    assert (ResNet(BasicBlock, [1, 1, 1, 1], zero_init_residual=True).layer1[0].bn2.weight == 0).all()


def test_shapes_and_arguments() -> None:
    small = ResNet(
        BasicBlock, [1, 1, 1, 1], num_classes=7, norm_layer=lambda channels: nn.BatchNorm2d(channels, eps=0.1)
    )
    assert small(distgrad.zeros(2, 3, 33, 40)).shape == (2, 7)
    assert small.bn1.eps == 0.1 and small.layer2[0].downsample[1].eps == 0.1
    assert small.layer1[0].downsample is None and small.layer2[0].stride == 2


def test_replacing_the_classifier_of_a_frozen_model() -> None:
    frozen = ResNet(BasicBlock, [1, 1, 1, 1])
    for parameter in frozen.parameters():
        parameter.requires_grad = False
    frozen.fc = nn.Linear(512, 10)
    assert [name for name, p in frozen.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    assert list(frozen.state_dict())[-2:] == ["fc.weight", "fc.bias"]
    frozen(distgrad.randn(2, 3, 32, 32)).sum().backward()
    assert [name for name, p in frozen.named_parameters() if p.grad is not None] == ["fc.weight", "fc.bias"]


def test_weights_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"ResNet18_Weights.IMAGENET1K_V9.*Did you mean .*There is: ResNet18_Weights"):
        resnet18(weights="IMAGENET1K_V9")
    with pytest.raises(TypeError, match="expected ResNet18_Weights but received ResNet34_Weights"):
        resnet18(weights="ResNet34_Weights.DEFAULT")
    with pytest.raises(TypeError, match="expected ResNet34_Weights but received ResNet18_Weights"):
        resnet34(weights=ResNet18_Weights.DEFAULT)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected ResNet18_Weights but received bool"):
        resnet18(weights=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'num_classes' expected value 1000 but got 10 instead.*nn.Linear\(512, 10\)"):
        resnet18(weights="DEFAULT", num_classes=10)
    assert get_weight("ResNet34_Weights.DEFAULT") is ResNet34_Weights.IMAGENET1K_V1


def test_weights_are_loaded(monkeypatch: pytest.MonkeyPatch, model: ResNet) -> None:
    values = {name: value.numpy() for name, value in model.state_dict().items()}
    asked: list[Any] = []

    def get_state_dict(self: ResNet18_Weights, path: Any = None, progress: bool = True, check_hash: bool = True) -> Any:
        asked.append((self, path, progress, check_hash))
        return dict(values)

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", get_state_dict)
    for weights in ("DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT", ResNet18_Weights.DEFAULT):
        assert _verified(weights, ResNet18_Weights) is ResNet18_Weights.IMAGENET1K_V1
    loaded = resnet18(weights="DEFAULT", progress=False, num_classes=1000)
    assert asked == [(ResNet18_Weights.IMAGENET1K_V1, None, False, True)]
    np.testing.assert_array_equal(loaded.fc.weight.detach().numpy(), values["fc.weight"])
    np.testing.assert_array_equal(loaded.layer4[1].bn2.running_var.numpy(), values["layer4.1.bn2.running_var"])
    assert loaded.training


def test_registry() -> None:
    assert list(MODELS) == ["resnet18", "resnet34"] and MODELS["resnet18"] is resnet18
    with pytest.raises(ConfigError, match=r"unknown model 'resnet19'. Did you mean 'resnet18'\? There is: resnet18"):
        MODELS["resnet19"]


@pytest.mark.assets
def test_the_real_weights_fit(assets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTGRAD_ASSETS", str(assets))
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path))
    loaded = resnet18(weights="DEFAULT", progress=False)
    values = ResNet18_Weights.DEFAULT.get_state_dict(progress=False)
    for name, value in loaded.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), values[name], err_msg=name)


@pytest.mark.parity
def test_text_and_names_are_those_of_plain_torch(torch_resnet: ModuleType, model: ResNet) -> None:
    theirs = torch_resnet.resnet18()
    assert repr(model) == repr(theirs)
    assert list(model.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    ours34, theirs34 = resnet34(), torch_resnet.resnet34()
    assert repr(ours34) == repr(theirs34)
    assert [(n, tuple(v.shape)) for n, v in ours34.state_dict().items()] == [
        (n, tuple(v.shape)) for n, v in theirs34.state_dict().items()
    ]


@pytest.mark.parity
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_plain_torch(torch_resnet: ModuleType, training: bool) -> None:
    import torch

    torch.manual_seed(0)
    theirs = torch_resnet.resnet18(10).double().train(training)
    for buffer in theirs.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    ours = resnet18(num_classes=10).double().train(training)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 64, 64))
    input, other = distgrad.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    output, expected = ours(input), theirs(other)
    np.testing.assert_allclose(output.detach().numpy(), expected.detach().numpy(), rtol=1e-10, atol=1e-10)
    labels = np.array([3, 7])
    nn.CrossEntropyLoss()(output, distgrad.tensor(labels)).backward()
    torch.nn.CrossEntropyLoss()(expected, torch.tensor(labels)).backward()
    pairs = {"input": (input, other)} | {
        name: (mine, theirs.get_parameter(name)) for name, mine in ours.named_parameters()
    }
    for name, (mine, its) in pairs.items():
        assert mine.grad is not None
        error = np.abs(mine.grad.numpy() - its.grad.numpy()).max()
        assert error <= 1e-10 * max(1.0, np.abs(its.grad.numpy()).max()), name
    for name, buffer in ours.named_buffers():
        np.testing.assert_allclose(
            buffer.numpy(), theirs.get_buffer(name).numpy(), rtol=1e-10, atol=1e-10, err_msg=name
        )
