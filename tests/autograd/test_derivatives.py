"""``backward`` and ``grad``: their arguments and their refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import backward, grad


def leaf(*values: float, **options: Any) -> dg.Tensor:
    return dg.tensor(list(values), requires_grad=True, **options)


def test_the_tutorial() -> None:
    a, b = leaf(2.0, 3.0), leaf(6.0, 4.0)
    q = 3 * a**3 - b**2
    q.backward(gradient=dg.tensor([1.0, 1.0]))
    assert repr(9 * a**2 == a.grad) == "tensor([True, True])"
    assert repr(-2 * b == b.grad) == "tensor([True, True])"


def test_a_gradient_is_needed_but_for_one_element() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        (x * 2).backward()
    (x * 2)[:1].backward()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [4.0, 2.0]


def test_a_wrong_gradient() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"Mismatch in shape: grad_output\[0\] has a shape of torch.Size\(\[3\]\)"):
        (x * 2).backward(dg.ones(3))
    with pytest.raises(TypeError, match="gradients can be either Tensors or None, but got float"):
        backward([x * 2], [1.0])  # type: ignore[list-item]
    with pytest.raises(RuntimeError, match="got 2 tensors and 1 gradients"):
        backward([x * 2, x * 3], [dg.ones(2)])


@pytest.mark.parametrize("dtype", [dg.float64, dg.int64])
def test_a_gradient_of_another_dtype_is_cast(dtype: Any) -> None:
    x = leaf(1.0, 2.0)
    (x * 2).backward(dg.ones(2, dtype=dtype))
    assert x.grad.dtype == dg.float32
    assert x.grad.tolist() == [2.0, 2.0]


def test_no_history() -> None:
    with pytest.raises(RuntimeError, match="element 0 of tensors does not require grad and does not have a grad_fn"):
        dg.ones(1).backward()
    with pytest.raises(RuntimeError, match="element 1 of tensors does not require grad"):
        backward([leaf(1.0), dg.ones(1)])


def test_several_roots() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    backward([y.sum(), y * x, x], [None, dg.tensor([1.0, 10.0]), dg.ones(2)])
    assert x.grad.tolist() == [3 + 6 + 1, 3 + 120 + 1]


def test_the_same_root_twice() -> None:
    x = leaf(1.0)
    y = x * 3
    backward([y, y])
    assert x.grad.item() == 6.0


def test_backward_into_chosen_inputs() -> None:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = x * w
    z = y * y
    z.sum().backward(inputs=[w, y])
    assert x.grad is None
    assert w.grad.tolist() == [6.0, 32.0]
    assert y.grad.tolist() == [6.0, 16.0]
    (x * 2).sum().backward(inputs=x)
    assert x.grad.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="cannot be empty"):
        (x * 2).sum().backward(inputs=[])
    with pytest.raises(RuntimeError, match="does not require grad"):
        (x * 2).sum().backward(inputs=[dg.ones(2)])


def test_backward_into_an_input_leaves_the_rest_untouched() -> None:
    x, w = leaf(1.0), leaf(3.0)
    calls: list[str] = []
    x.register_hook(lambda g: calls.append("x"))
    w.register_hook(lambda g: calls.append("w"))
    (x * w).sum().backward(inputs=[w])
    assert calls == ["w"]
    assert x.grad is None


def test_grad_of_leaves_and_of_others() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    z = (y * 3).sum()
    gy, gx = grad(z, [y, x])
    assert (gy.tolist(), gx.tolist()) == ([3.0, 3.0], [6.0, 12.0])
    assert x.grad is None
    assert y.grad is None
    assert not gx.requires_grad


def test_grad_of_a_tensor_with_respect_to_itself() -> None:
    x = leaf(1.0)
    assert grad(x, x)[0].tolist() == [1.0]
    y = x * 2
    assert grad(y, [y, x])[0].tolist() == [1.0]


def test_unused_inputs() -> None:
    x, unused = leaf(1.0, 2.0), leaf(3.0)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        grad((x * 2).sum(), [x, unused])
    gx, nothing = grad((x * 2).sum(), [x, unused], allow_unused=True)
    assert gx.tolist() == [2.0, 2.0]
    assert nothing is None
    _, zeros = grad((x * 2).sum(), [x, unused], materialize_grads=True)
    assert zeros.tolist() == [0.0]
    with pytest.raises(ValueError, match="allow_unused"):
        grad((x * 2).sum(), [x, unused], allow_unused=False, materialize_grads=True)
    with pytest.raises(RuntimeError, match=r"does not require grad \(input 1\)"):
        grad((x * 2).sum(), [x, dg.ones(2)])


def test_grad_outputs() -> None:
    x = leaf(1.0, 2.0)
    (g,) = grad([x * 2, x.sum()], x, [dg.tensor([1.0, 10.0]), None])
    assert g.tolist() == [3.0, 21.0]


def test_grad_frees_the_graph_unless_asked() -> None:
    x = leaf(2.0)
    y = (x * x).sum()
    grad(y, x, retain_graph=True)
    grad(y, x)
    with pytest.raises(RuntimeError, match="second time"):
        grad(y, x)


def test_grad_keeps_what_the_targets_do_not_need() -> None:
    """Nodes that lead to no target are not run, so their residuals stay, as in PyTorch."""
    x, w = leaf(2.0), leaf(3.0)
    a, b = x.exp(), w.exp()
    grad((a + b).sum(), x)
    b.sum().backward()
    assert w.grad.item() == pytest.approx(np.exp(3.0), rel=1e-6)


def test_grads_are_copies() -> None:
    a, b = leaf(1.0), leaf(2.0)
    ga, gb = grad((a + b).sum(), [a, b])
    ga.zero_()
    assert gb.item() == 1.0


def test_create_graph_gives_a_hessian() -> None:
    x = leaf(1.0, 2.0, 3.0, dtype=dg.float64)
    (g,) = grad((x**3).sum() + x[0] * x[2], x, create_graph=True)
    rows = [grad(g[i], x, retain_graph=True)[0].tolist() for i in range(3)]
    assert rows == [[6.0, 0.0, 1.0], [0.0, 12.0, 0.0], [1.0, 0.0, 18.0]]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["add", "sum", "view", "neg", "mul", "exp", "div", "pow", "mean", "index", "where"])
def test_which_graphs_can_be_walked_twice(name: str) -> None:
    torch = pytest.importorskip("torch")
    ops = {
        "add": lambda t, x: x + 1, "sum": lambda t, x: x.sum(), "view": lambda t, x: x.view(2, 1),
        "neg": lambda t, x: -x, "mul": lambda t, x: x * 2, "exp": lambda t, x: x.exp(), "div": lambda t, x: x / 2,
        "pow": lambda t, x: x**2, "mean": lambda t, x: x.mean(), "index": lambda t, x: x[0],
        "where": lambda t, x: t.where(x > 0, x, 0.0),
    }  # fmt: skip

    def twice(t: Any) -> bool:
        y = ops[name](t, t.ones(2, requires_grad=True)).sum()
        y.backward()
        try:
            y.backward()
        except RuntimeError:
            return False
        return True

    assert twice(dg) == twice(torch)


def test_a_root_that_others_lead_through() -> None:
    """One result of an operation is itself asked about, another is used further on: both count."""
    x = dg.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=dg.float64, requires_grad=True)
    a, b = dg.unbind(x * 1.0)
    (g,) = dg.autograd.grad([a, dg.exp(b[:1])], x, [dg.ones(2), dg.ones(1)])
    np.testing.assert_allclose(g.numpy(), [[1.0, 1.0], [np.exp(2.0), 0.0]])
    y = x.exp()
    (g,) = dg.autograd.grad([y, (y * y).sum()], x, [dg.ones(2, 2), dg.tensor(1.0)])
    np.testing.assert_allclose(g.numpy(), np.exp(x.detach().numpy()) + 2 * np.exp(2 * x.detach().numpy()))


def test_a_batch_of_vectors_at_once() -> None:
    x, unused = leaf(1.0, 2.0, 3.0), leaf(1.0)
    w = dg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, -6.0]], requires_grad=True)
    y = (w @ x).tanh() * x.sum()
    vectors = dg.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]])
    found = grad(y, [x, w, unused], vectors, retain_graph=True, is_grads_batched=True, allow_unused=True)
    assert found[2] is None
    for number, vector in enumerate(vectors):
        for batch, one in zip(found[:2], grad(y, [x, w], vector, retain_graph=True), strict=True):
            np.testing.assert_allclose(batch[number].numpy(), one.numpy(), rtol=1e-5, atol=1e-6)
    (recorded,) = grad(y, x, vectors, create_graph=True, is_grads_batched=True)
    assert grad((recorded * recorded).sum(), w)[0].shape == (2, 3)
    with pytest.raises(RuntimeError, match=r"is_grads_batched=True takes grad_outputs of shape"):
        grad(y.sum(), x, is_grads_batched=True)
