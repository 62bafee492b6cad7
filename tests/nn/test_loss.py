from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.nn import functional as F


def draw(*size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(size)


def probabilities(*size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(0.05, 0.95, size)


def signs(*size: int) -> Any:
    return np.random.default_rng(5).choice([-1.0, 1.0], size)


CLASSES = np.array([0, 3, 1, 1, 2, 0])
SEVERAL = np.array([[0, 2, -1, 1], [3, -1, 0, 0], [-1, 1, 1, 1]])
ROWS, MORE, YET_MORE = draw(6, 4), draw(6, 4, seed=1), draw(6, 4, seed=2)
POINTWISE: list[dict[str, Any]] = [{}, {"reduction": "sum"}, {"reduction": "none"}]
# The layer, its options, and what it is called with; the first of it gets a gradient.
LOSSES: list[tuple[str, list[dict[str, Any]], tuple[Any, ...]]] = [
    ("NLLLoss", [*POINTWISE, {"weight": True}, {"ignore_index": 1, "weight": True}], (ROWS, CLASSES)),
    (
        "CrossEntropyLoss",
        [*POINTWISE, {"label_smoothing": 0.1}, {"ignore_index": 1, "weight": True, "label_smoothing": 0.3}],
        (ROWS, CLASSES),
    ),
    ("CrossEntropyLoss", [{}, {"ignore_index": 1, "reduction": "none"}], (draw(6, 4, 3), np.stack([CLASSES] * 3, 1))),
    (
        "CrossEntropyLoss",
        [*POINTWISE, {"weight": True, "label_smoothing": 0.3}],
        (ROWS, np.random.default_rng(1).dirichlet(np.ones(4), 6)),
    ),
    ("MultiMarginLoss", [*POINTWISE, {"p": 2, "margin": 0.5}, {"weight": True}], (ROWS, CLASSES)),
    ("MultiLabelMarginLoss", POINTWISE, (draw(3, 4), SEVERAL)),
    ("MultiLabelSoftMarginLoss", [*POINTWISE, {"weight": True}], (ROWS, probabilities(6, 4))),
    ("MSELoss", POINTWISE, (ROWS, MORE)),
    ("L1Loss", POINTWISE, (ROWS, MORE)),
    ("SmoothL1Loss", [*POINTWISE, {"beta": 0.3}, {"beta": 0.0}], (ROWS, MORE)),
    ("HuberLoss", [*POINTWISE, {"delta": 0.3}], (ROWS, MORE)),
    ("BCELoss", [*POINTWISE, {"weight": True}], (probabilities(6, 4), probabilities(6, 4, seed=1))),
    (
        "BCEWithLogitsLoss",
        [*POINTWISE, {"weight": True}, {"pos_weight": True}, {"weight": True, "pos_weight": True, "reduction": "sum"}],
        (ROWS, probabilities(6, 4)),
    ),
    ("SoftMarginLoss", POINTWISE, (ROWS, signs(6, 4))),
    (
        "KLDivLoss",
        [{"reduction": "batchmean"}, {"reduction": "sum"}, {"reduction": "none", "log_target": True}],
        (ROWS, probabilities(6, 4)),
    ),
    ("PoissonNLLLoss", [*POINTWISE, {"full": True}], (ROWS, 3 * probabilities(6, 4))),
    ("PoissonNLLLoss", [{"log_input": False, "eps": 0.1}], (probabilities(6, 4), 3 * probabilities(6, 4))),
    ("GaussianNLLLoss", [*POINTWISE, {"full": True, "eps": 0.5}], (ROWS, MORE, probabilities(6, 4))),
    ("GaussianNLLLoss", [{}], (ROWS, MORE, 0.7)),
    ("CosineEmbeddingLoss", [*POINTWISE, {"margin": 0.2}], (ROWS, MORE, signs(6))),
    ("HingeEmbeddingLoss", [*POINTWISE, {"margin": 0.2}], (ROWS, signs(6, 4))),
    ("MarginRankingLoss", [*POINTWISE, {"margin": 0.2}], (ROWS[:, 0], MORE[:, 0], signs(6))),
    (
        "TripletMarginLoss",
        [*POINTWISE, {"margin": 0.2, "p": 1.0, "swap": True}, {"eps": 0.1}],
        (ROWS, MORE, YET_MORE),
    ),
    ("TripletMarginWithDistanceLoss", [*POINTWISE, {"margin": 0.2, "swap": True}], (ROWS, MORE, YET_MORE)),
]
CASES = [(name, options, values) for name, several, values in LOSSES for options in several]


@pytest.mark.parity
@pytest.mark.parametrize(("name", "options", "values"), CASES, ids=[f"{n}-{o}-{len(v)}" for n, o, v in CASES])
def test_parity(name: str, options: dict[str, Any], values: tuple[Any, ...]) -> None:
    torch = pytest.importorskip("torch")
    mine, other = dict(options), dict(options)
    for key in ("weight", "pos_weight"):
        if key in options:
            array = np.linspace(0.5, 2.0, 4) if key == "weight" else np.linspace(3.0, 0.2, 4)
            mine[key], other[key] = distgrad.tensor(array), torch.tensor(array)
    ours, theirs = getattr(nn, name)(**mine), getattr(torch.nn, name)(**other)
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    numbers = [v for v in values if not isinstance(v, np.ndarray)]
    first = [distgrad.tensor(arrays[0], requires_grad=True), *map(distgrad.tensor, arrays[1:]), *numbers]
    second = [torch.tensor(arrays[0], requires_grad=True), *map(torch.tensor, arrays[1:]), *numbers]
    value, expected = ours(*first), theirs(*second)
    np.testing.assert_allclose(value.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    value.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(first[0].grad.numpy(), second[0].grad.numpy(), rtol=1e-12, atol=1e-12)


def test_the_weight_is_a_buffer() -> None:
    loss = nn.CrossEntropyLoss(distgrad.ones(3))
    assert list(loss.state_dict()) == ["weight"] and not list(loss.parameters())
    assert loss.double().weight.dtype == np.float64
    assert not nn.CrossEntropyLoss().state_dict()
    assert list(nn.BCEWithLogitsLoss(pos_weight=distgrad.ones(2)).state_dict()) == ["pos_weight"]


def test_bad_reduction() -> None:
    with pytest.raises(ValueError, match="'median' is not a valid value for reduction"):
        nn.MSELoss(reduction="median")(distgrad.ones(1), distgrad.ones(1))


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [({"size_average": False}, "sum"), ({"size_average": True}, "mean"), ({"reduce": False}, "none")],
)
def test_the_old_arguments_are_refused(arguments: dict[str, Any], instead: str) -> None:
    for make in (nn.MSELoss, nn.CrossEntropyLoss, nn.BCELoss, nn.TripletMarginLoss, nn.PoissonNLLLoss):
        with pytest.raises(ValueError, match=rf"deprecated and not supported: pass reduction='{instead}' instead"):
            make(**arguments)


def test_arguments_stand_where_pytorch_has_them() -> None:
    loss = nn.CrossEntropyLoss(None, None, 3, None, "sum", 0.1)
    assert (loss.ignore_index, loss.reduction, loss.label_smoothing) == (3, "sum", 0.1)
    x, y = distgrad.ones(2, 3), distgrad.tensor([0, 1])
    assert F.cross_entropy(x, y, None, None, 1, None, "sum").item() == pytest.approx(math.log(3))
    assert nn.MultiMarginLoss(2, 0.5, distgrad.ones(3)).p == 2 and nn.SmoothL1Loss(None, None, "sum", 0.2).beta == 0.2


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss()])
def test_other_shapes_are_broadcast_with_a_warning(loss: nn.Module) -> None:
    x, y = distgrad.tensor(draw(3, 2)), distgrad.tensor(draw(2), requires_grad=True)
    with pytest.warns(UserWarning, match=r"Using a target size \(torch.Size\(\[2\]\)\) that is different to the input"):
        value = loss(x, y)
    wide = y.detach().expand(3, 2).clone().requires_grad_()
    expected = loss(x, wide)
    value.backward()
    expected.backward()
    assert value.item() == expected.item()
    np.testing.assert_allclose(y.grad.numpy(), wide.grad.numpy().sum(0), rtol=1e-12)
    with (
        pytest.raises(RuntimeError, match="must match the size of tensor b"),
        warnings.catch_warnings(action="ignore"),
    ):
        loss(x, distgrad.ones(4, 2))


def test_the_mean_of_a_divergence_warns() -> None:
    x = distgrad.tensor(draw(2, 3))
    with pytest.warns(UserWarning, match="reduction: 'mean' divides the total loss by both the batch size"):
        value = nn.KLDivLoss()(x, x.exp())
    assert value.item() == pytest.approx(nn.KLDivLoss(reduction="sum")(x, x.exp()).item() / 6)


def test_margins_must_be_positive() -> None:
    for make in (nn.TripletMarginLoss, nn.TripletMarginWithDistanceLoss):
        with pytest.raises(ValueError, match="margin must be greater than 0, got 0"):
            make(margin=0)
    with pytest.raises(ValueError, match="only p == 1 and p == 2 supported, not 3"):
        nn.MultiMarginLoss(3)
    with pytest.raises(ValueError, match="weight must be one-dimensional"):
        nn.MultiMarginLoss(weight=distgrad.ones(2, 2))


@pytest.mark.parametrize("loss", [F.nll_loss, F.cross_entropy, F.multi_margin_loss])
def test_class_weights_get_no_gradient(loss: Callable[..., Any]) -> None:
    x, y = distgrad.tensor(draw(2, 3)), distgrad.tensor([0, 2])
    weight = distgrad.ones(3, dtype=distgrad.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="is not differentiable with respect to its weight"):
        loss(x, y, weight=weight)
    with distgrad.no_grad():
        assert math.isfinite(loss(x, y, weight=weight).item())


def test_probability_losses_at_the_ends() -> None:
    x = distgrad.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    values = F.binary_cross_entropy(x, distgrad.tensor([1.0, 0.0, 0.0, 1.0]), reduction="none")
    assert values.tolist() == [100.0, 100.0, 0.0, 0.0]
    values.sum().backward()
    assert x.grad is not None and np.isfinite(x.grad.numpy()).all()
    far = distgrad.tensor([-1000.0, 1000.0, -1000.0, 1000.0], requires_grad=True)
    values = F.binary_cross_entropy_with_logits(far, distgrad.tensor([1.0, 0.0, 0.0, 1.0]), reduction="none")
    assert values.tolist() == [1000.0, 1000.0, 0.0, 0.0]
    values.sum().backward()
    assert far.grad is not None and far.grad.tolist() == [-1.0, 1.0, 0.0, 0.0]
    assert F.soft_margin_loss(far.detach(), distgrad.ones(4), reduction="none").tolist() == [1000.0, 0.0, 1000.0, 0.0]


def test_ignored_samples_count_for_nothing_whatever_they_are() -> None:
    x = distgrad.tensor([[0.0, 1.0], [-math.inf, 0.0]], requires_grad=True)
    value = F.nll_loss(x, distgrad.tensor([1, -100]))
    value.backward()
    assert value.item() == -1.0 and x.grad is not None and x.grad.tolist() == [[0.0, -1.0], [0.0, 0.0]]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_losses_promote_and_stay_in_their_precision(dtype: str) -> None:
    kind = np.dtype(dtype)
    x, y = (distgrad.tensor(probabilities(3, 4, seed=s)).to(kind) for s in (0, 1))
    labels = distgrad.tensor([0, 1, 2])
    losses = [
        F.mse_loss(x, y), F.l1_loss(x, y), F.smooth_l1_loss(x, y), F.huber_loss(x, y), F.soft_margin_loss(x, y),
        F.binary_cross_entropy(x, y), F.binary_cross_entropy_with_logits(x, y), F.kl_div(x, y, reduction="sum"),
        F.poisson_nll_loss(x, y, full=True), F.gaussian_nll_loss(x, y, y, full=True), F.gaussian_nll_loss(x, y, 0.5),
        F.cross_entropy(x, labels, label_smoothing=0.1), F.cross_entropy(x, y, label_smoothing=0.1),
        F.multi_margin_loss(x, labels), F.multilabel_soft_margin_loss(x, y), F.cosine_similarity(x, y),
        F.multilabel_margin_loss(x, distgrad.tensor(SEVERAL)), F.pairwise_distance(x, y, 3.0), F.normalize(x),
        F.cosine_embedding_loss(x, y, distgrad.tensor([1, -1, 1])), F.triplet_margin_loss(x, y, x),
        F.hinge_embedding_loss(x, distgrad.tensor(signs(3, 4)).to(kind)),
        F.margin_ranking_loss(x, y, distgrad.tensor(signs(3, 4)).to(kind)),
    ]  # fmt: skip
    assert {value.dtype for value in losses} == {kind}
    wide = y.double()
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy_with_logits):
        assert loss(x, wide).dtype == np.float64, loss
    assert F.pairwise_distance(distgrad.tensor([[1, 2]]), distgrad.tensor([[1, 3]])).dtype == np.float32


def test_norms_in_half_precision_do_not_overflow() -> None:
    x = distgrad.full((2, 4), 300.0, dtype=distgrad.float16)
    assert F.normalize(x).tolist() == [[0.5] * 4] * 2
