"""The ResNets: torchvision's names, sizes and arguments, initial values, weights, and the values of plain torch."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.errors import ConfigError
from distgrad.models import (
    MODELS,
    ResNet,
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    get_model_weights,
    get_weight,
    resnet18,
    resnet34,
    resnet50,
    resnext50_32x4d,
    wide_resnet50_2,
)
from distgrad.models.resnet import BasicBlock, Bottleneck


@pytest.fixture(scope="module")
def model() -> ResNet:
    distgrad.manual_seed(0)
    return resnet18()


@pytest.fixture
def without_initial_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing hundreds of millions of numbers takes seconds, and names and sizes do not need them."""
    monkeypatch.setattr(nn.init, "kaiming_normal_", lambda tensor, **options: tensor)
    monkeypatch.setattr(nn.Conv2d, "reset_parameters", lambda self: None)
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: None)


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


@pytest.mark.parametrize(
    ("name", "count", "entries"),
    [
        ("resnet18", 11_689_512, 122),
        ("resnet34", 21_797_672, 218),
        ("resnet50", 25_557_032, 320),
        ("resnet101", 44_549_160, 626),
        ("resnet152", 60_192_808, 932),
        ("resnext50_32x4d", 25_028_904, 320),
        ("resnext101_32x8d", 88_791_336, 626),
        ("resnext101_64x4d", 83_455_272, 626),
        ("wide_resnet50_2", 68_883_240, 320),
        ("wide_resnet101_2", 126_886_696, 626),
    ],
)
@pytest.mark.usefixtures("without_initial_values")
def test_numbers_of_parameters(name: str, count: int, entries: int) -> None:
    made = MODELS[name]()
    assert sum(parameter.numel() for parameter in made.parameters()) == count
    assert len(made.state_dict()) == entries
    for member in get_model_weights(name):
        assert member.meta["num_params"] == count


@pytest.mark.usefixtures("without_initial_values")
def test_a_bottleneck_by_name_and_shape() -> None:
    shapes = {name: tuple(value.shape) for name, value in resnet50().layer2[0].state_dict().items() if value.ndim > 1}
    assert shapes == {
        "conv1.weight": (128, 256, 1, 1),
        "conv2.weight": (128, 128, 3, 3),
        "conv3.weight": (512, 128, 1, 1),
        "downsample.0.weight": (512, 256, 1, 1),
    }
    block = resnet50().layer2[0]
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride] == [(1, 1), (2, 2), (1, 1)]
    assert block.downsample[0].stride == (2, 2) and resnet50().layer1[0].downsample is not None
    assert resnext50_32x4d().layer1[0].conv2.weight.shape == (128, 4, 3, 3)
    assert resnext50_32x4d().layer4[0].conv2.weight.shape == (1024, 32, 3, 3)
    assert wide_resnet50_2().layer1[0].conv2.weight.shape == (128, 128, 3, 3)
    assert resnet50().fc.weight.shape == (1000, 2048)


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


@pytest.mark.parametrize(("block", "last"), [(BasicBlock, "bn2"), (Bottleneck, "bn3")])
def test_the_last_scale_of_a_block_may_start_at_zero(block: Any, last: str) -> None:
    plain, zero = (ResNet(block, [1, 1, 1, 1], 2, zero_init_residual=flag) for flag in (False, True))
    for name, module in zero.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == (0 if name.endswith(last) else 1)).all(), name
            assert (plain.get_submodule(name).weight == 1).all()
    x = distgrad.rand(1, 64 if block is BasicBlock else 256, 5, 5)
    blocks = ResNet(block, [2, 1, 1, 1], 2, zero_init_residual=True).eval().layer1
    np.testing.assert_array_equal(blocks[1](x).detach().numpy(), x.numpy())


def test_shapes_and_arguments() -> None:
    small = ResNet(
        BasicBlock, [1, 1, 1, 1], num_classes=7, norm_layer=lambda channels: nn.BatchNorm2d(channels, eps=0.1)
    )
    assert small(distgrad.zeros(2, 3, 33, 40)).shape == (2, 7)
    assert small.bn1.eps == 0.1 and small.layer2[0].downsample[1].eps == 0.1
    assert small.layer1[0].downsample is None and small.layer2[0].stride == 2
    bare = ResNet(Bottleneck, [1, 1, 1, 1], 7, True, norm_layer=lambda channels: nn.BatchNorm2d(channels, affine=False))
    assert bare(distgrad.zeros(2, 3, 33, 40)).shape == (2, 7)


def test_dilation_keeps_the_resolution() -> None:
    def features(*flags: bool) -> tuple[int, ...]:
        net = ResNet(Bottleneck, [1, 2, 2, 2], 2, replace_stride_with_dilation=flags or None).eval()
        x = net.maxpool(net.relu(net.bn1(net.conv1(distgrad.zeros(1, 3, 64, 64)))))
        return tuple(net.layer4(net.layer3(net.layer2(net.layer1(x)))).shape)

    assert features() == (1, 2048, 2, 2)
    assert features(False, False, True) == (1, 2048, 4, 4)
    assert features(False, True, True) == (1, 2048, 8, 8)
    net = ResNet(Bottleneck, [1, 2, 2, 2], 2, replace_stride_with_dilation=(False, True, True))
    assert [net.layer3[i].conv2.dilation[0] for i in range(2)] == [1, 2]
    assert [net.layer4[i].conv2.dilation[0] for i in range(2)] == [2, 4]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: resnet18(groups=2), ValueError, "BasicBlock only supports groups=1 and base_width=64, not 2 and 64"),
        (lambda: resnet18(width_per_group=128), ValueError, "not 1 and 128: use Bottleneck"),
        (
            lambda: resnet18(replace_stride_with_dilation=[False, False, True]),
            NotImplementedError,
            "Dilation > 1 not supported in BasicBlock",
        ),
        (
            lambda: resnet50(replace_stride_with_dilation=[True]),
            ValueError,
            r"should be None or a 3-element tuple, got \[True\]",
        ),
        (lambda: resnext50_32x4d(groups=16), ValueError, "The parameter 'groups' expected value 32 but got 16 instead"),
        (lambda: wide_resnet50_2(width_per_group=64), ValueError, "'width_per_group' expected value 128 but got 64"),
        (lambda: resnet50(pretrained=True), TypeError, "pretrained"),
        (lambda: resnet50("DEFAULT"), TypeError, "positional"),
    ],
)
@pytest.mark.usefixtures("without_initial_values")
def test_refuses(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


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
    with pytest.raises(
        ConfigError, match=r"ResNet18_Weights.IMAGENET1K_V9.*Did you mean .*There is: .*ResNet18_Weights"
    ):
        resnet18(weights="IMAGENET1K_V9")
    with pytest.raises(TypeError, match="expected ResNet18_Weights but received ResNet34_Weights"):
        resnet18(weights="ResNet34_Weights.DEFAULT")
    with pytest.raises(TypeError, match="expected ResNet34_Weights but received ResNet18_Weights"):
        resnet34(weights=ResNet18_Weights.DEFAULT)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected ResNet18_Weights but received bool"):
        resnet18(weights=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'num_classes' expected value 1000 but got 10 instead.*nn.Linear\(512, 10\)"):
        resnet18(weights="DEFAULT", num_classes=10)
    with pytest.raises(ValueError, match=r"nn.Linear\(2048, 10\)"):
        resnet50(weights=ResNet50_Weights.IMAGENET1K_V1, num_classes=10)
    assert get_weight("ResNet34_Weights.DEFAULT") is ResNet34_Weights.IMAGENET1K_V1


def test_weights_are_loaded(monkeypatch: pytest.MonkeyPatch, model: ResNet) -> None:
    values = {name: value.numpy() for name, value in model.state_dict().items()}
    asked: list[Any] = []

    def get_state_dict(self: ResNet18_Weights, path: Any = None, progress: bool = True, check_hash: bool = True) -> Any:
        asked.append((self, path, progress, check_hash))
        return dict(values)

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", get_state_dict)
    for weights in ("DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT", ResNet18_Weights.DEFAULT):
        assert ResNet18_Weights.verify(weights) is ResNet18_Weights.IMAGENET1K_V1
    assert ResNet18_Weights.verify(None) is None
    loaded = resnet18(weights="DEFAULT", progress=False, num_classes=1000)
    assert asked == [(ResNet18_Weights.IMAGENET1K_V1, None, False, True)]
    np.testing.assert_array_equal(loaded.fc.weight.detach().numpy(), values["fc.weight"])
    np.testing.assert_array_equal(loaded.layer4[1].bn2.running_var.numpy(), values["layer4.1.bn2.running_var"])
    assert loaded.training


@pytest.mark.assets
def test_the_real_weights_fit(assets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTGRAD_ASSETS", str(assets))
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path))
    loaded = resnet18(weights="DEFAULT", progress=False)
    values = ResNet18_Weights.DEFAULT.get_state_dict(progress=False)
    for name, value in loaded.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), values[name], err_msg=name)


# --- plain torch ---


@pytest.mark.parity
@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2", "dilated"],
)
@pytest.mark.usefixtures("without_initial_values")
def test_text_and_names_are_those_of_plain_torch(torch_resnet: ModuleType, name: str) -> None:
    import torch

    with torch.device("meta"):
        theirs = torch_resnet.dilated_resnet50() if name == "dilated" else getattr(torch_resnet, name)()
    dilated = {"replace_stride_with_dilation": [False, True, True]}
    ours = resnet50(**dilated) if name == "dilated" else MODELS[name]()
    assert repr(ours) == repr(theirs)
    assert [(n, tuple(v.shape)) for n, v in ours.state_dict().items()] == [
        (n, tuple(v.shape)) for n, v in theirs.state_dict().items()
    ]
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]


def small(torch_resnet: ModuleType, kind: str) -> tuple[Any, Any]:
    """One block a stage, for what only the arguments of a block change."""
    options: dict[str, Any] = {
        "groups": ({"groups": 8, "width_per_group": 4}, {"groups": 8, "width": 4}),
        "wide": ({"width_per_group": 96}, {"width": 96}),
        "dilated": (
            {"replace_stride_with_dilation": [False, True, True]},
            {"strides": (1, 2, 1, 1), "dilations": ((1, 1), (1, 1), (1, 2), (2, 4))},
        ),
    }[kind]
    layers = [1, 1, 2, 1]
    return (
        ResNet(Bottleneck, layers, 10, **options[0]),
        torch_resnet.ResNet(torch_resnet.Bottleneck, layers, 10, **options[1]),
    )


@pytest.mark.parity
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "groups", "wide", "dilated"])
def test_outputs_and_gradients_are_those_of_plain_torch(torch_resnet: ModuleType, name: str, training: bool) -> None:
    import torch

    torch.manual_seed(0)
    if name in MODELS:
        theirs, ours = getattr(torch_resnet, name)(10), MODELS[name](num_classes=10)
    else:
        ours, theirs = small(torch_resnet, name)
    theirs = theirs.double().train(training)
    for buffer in theirs.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    ours = ours.double().train(training)
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
