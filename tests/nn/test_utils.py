from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.nn import utils

NORMS = [1, 2, 2.5, 0, math.inf, -math.inf, 0.5]


def parameters(library: Any, *gradients: Any) -> list[Any]:
    """Parameters with these gradients, and one without."""
    made = []
    for gradient in gradients:
        parameter = library.nn.Parameter(library.ones(gradient.shape, dtype=library.float64))
        parameter.grad = library.tensor(gradient)
        made.append(parameter)
    return [*made, library.nn.Parameter(library.ones(1))]


def draw(*size: int) -> Any:
    return np.random.default_rng(0).standard_normal(size)


# Gradients -----------------------------------------------------------------------------------------------------------


def test_clipping_keeps_the_direction() -> None:
    first, second, without = parameters(distgrad, np.array([3.0, 0.0]), np.array([[4.0]]))
    held = first.grad
    total = utils.clip_grad_norm_([first, second, without], 1.0)
    assert total.shape == () and total.item() == 5.0 and total.dtype == np.float64
    assert (
        first.grad is held and held.tolist() == pytest.approx([0.6, 0.0]) and second.grad.item() == pytest.approx(0.8)
    )
    before = first.grad.tolist()
    assert utils.clip_grad_norm_(first, 10.0).item() == pytest.approx(0.6) and first.grad.tolist() == before
    utils.clip_grads_with_norm_([first], 1.0, distgrad.tensor(4.0))
    assert first.grad.tolist() == pytest.approx([0.15, 0.0])


def test_clipping_each_element() -> None:
    first, without = parameters(distgrad, np.array([3.0, -4.0, 0.5]))
    assert utils.clip_grad_value_(iter([first, without]), 1.0) is None
    assert first.grad.tolist() == [1.0, -1.0, 0.5]
    utils.clip_grad_value_(first, 0.25)
    assert first.grad.tolist() == [0.25, -0.25, 0.25]


def test_nothing_to_clip() -> None:
    assert utils.clip_grad_norm_([], 1.0).item() == 0.0
    assert utils.clip_grad_norm_([nn.Parameter(distgrad.ones(2))], 1.0).item() == 0.0
    with pytest.warns(UserWarning, match="`parameters` is an empty generator"):
        utils.clip_grad_norm_((p for p in ()), 1.0)


def test_norms_that_are_not_finite() -> None:
    (first, _) = parameters(distgrad, np.array([math.inf, 1.0]))
    with pytest.raises(RuntimeError, match=r"The total norm of order 2.0 for gradients .* is non-finite"):
        utils.clip_grad_norm_(first, 1.0, error_if_nonfinite=True)
    assert first.grad.tolist() == [math.inf, 1.0]
    assert utils.clip_grad_norm_(first, 1.0).item() == math.inf
    assert math.isnan(first.grad.tolist()[0]) and first.grad.tolist()[1] == 0.0


def test_half_precision_does_not_overflow() -> None:
    tensors = [distgrad.full((2,), 300.0, dtype=distgrad.float16)] * 2
    total = utils.get_total_norm(tensors)
    assert total.dtype == np.float16 and total.item() == 600.0
    assert utils.get_total_norm([*tensors, distgrad.ones(1)]).dtype == np.float32


def test_gradients_in_training() -> None:
    distgrad.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    (100 * model(distgrad.randn(5, 3)).sum()).backward()
    assert utils.clip_grad_norm_(model.parameters(), 1.0).item() > 1
    assert utils.get_total_norm([p.grad for p in model.parameters()]).item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("norm_type", NORMS)
def test_norms_are_pytorchs(norm_type: float) -> None:
    torch = pytest.importorskip("torch")
    gradients = [draw(3, 2), draw(5), np.array(0.7)]
    mine, other = parameters(distgrad, *gradients), parameters(torch, *gradients)
    total, expected = (
        library.nn.utils.clip_grad_norm_(p, 0.7, norm_type) for library, p in ((distgrad, mine), (torch, other))
    )
    np.testing.assert_allclose(total.numpy(), expected.numpy(), rtol=1e-12)
    for p, q in zip(mine[:-1], other[:-1], strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)


# Vectors -------------------------------------------------------------------------------------------------------------


def test_parameters_as_one_vector_and_back() -> None:
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    vector = utils.parameters_to_vector(first.parameters())
    assert vector.shape == (9,) and vector.requires_grad
    vector.sum().backward()
    assert first.weight.grad.tolist() == [[1.0, 1.0]] * 3
    utils.vector_to_parameters(vector, second.parameters())
    assert distgrad.equal(first.weight, second.weight) and distgrad.equal(first.bias, second.bias)
    assert second.weight.is_leaf and second.weight.requires_grad
    with pytest.raises(TypeError, match=r"expected torch.Tensor, but got: list"):
        utils.vector_to_parameters([1.0], first.parameters())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="shape"):
        utils.vector_to_parameters(distgrad.ones(2), first.parameters())


# Fusion --------------------------------------------------------------------------------------------------------------


def normalization(kind: Any, features: int) -> Any:
    layer = kind(features).eval()
    for name, value in layer.state_dict().items():
        if name != "num_batches_tracked":
            value.copy_(distgrad.rand(features) + 0.5)
    return layer


@pytest.mark.parametrize(
    ("layer", "kind", "shape", "options"),
    [
        (nn.Conv2d(2, 3, 2), nn.BatchNorm2d, (4, 2, 5, 5), {}),
        (nn.Conv2d(2, 4, 1, bias=False, groups=2), nn.BatchNorm2d, (4, 2, 3, 3), {}),
        (nn.Conv1d(2, 3, 2), nn.BatchNorm1d, (4, 2, 5), {}),
        (nn.ConvTranspose2d(2, 3, 2), nn.BatchNorm2d, (4, 2, 5, 5), {"transpose": True}),
        (nn.Linear(2, 3), nn.BatchNorm1d, (4, 2), {}),
        (nn.Linear(2, 3, bias=False), nn.BatchNorm1d, (4, 2), {}),
    ],
)
def test_fused_layers_do_what_two_did(layer: Any, kind: Any, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    distgrad.manual_seed(0)
    features = getattr(layer, "out_channels", None) or layer.out_features
    layer.eval()
    norm = normalization(kind, features)
    fuse = utils.fuse_linear_bn_eval if isinstance(layer, nn.Linear) else utils.fuse_conv_bn_eval
    fused = fuse(layer, norm, **options)
    x = distgrad.randn(*shape)
    np.testing.assert_allclose(fused(x).detach().numpy(), norm(layer(x)).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert type(fused) is type(layer) and fused is not layer and fused.bias.dtype == np.float32


def test_fusion_without_scale_and_shift() -> None:
    norm = nn.BatchNorm1d(3, affine=False).eval()
    norm.running_var.fill_(4.0)
    layer = nn.Linear(2, 3).eval()
    fused = utils.fuse_linear_bn_eval(layer, norm)
    np.testing.assert_allclose(fused.weight.detach().numpy(), layer.weight.detach().numpy() / 2, rtol=1e-5)


def test_what_cannot_be_fused() -> None:
    layer, norm = nn.Conv2d(1, 2, 1).eval(), nn.BatchNorm2d(2).eval()
    with pytest.raises(ValueError, match="Fusion only for eval!"):
        utils.fuse_conv_bn_eval(layer, nn.BatchNorm2d(2))
    with pytest.raises(ValueError, match="Fusion only for eval!"):
        utils.fuse_conv_bn_eval(nn.Conv2d(1, 2, 1), norm)
    with pytest.raises(ValueError, match="must not be None"):
        utils.fuse_conv_bn_eval(layer, nn.BatchNorm2d(2, track_running_stats=False).eval())
    with pytest.raises(ValueError, match=r"got linear.out_features=3 and bn.num_features=4"):
        utils.fuse_linear_bn_eval(nn.Linear(2, 3).eval(), nn.BatchNorm1d(4).eval())
