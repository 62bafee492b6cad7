"""Derivatives as functions: values, nesting, history, structures, and PyTorch's answers to the same programs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    value_and_grad,
    vjp,
    vmap,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal(3)
Y = RNG.standard_normal((2, 3))


def x() -> Tensor:
    return Tensor(X.copy())


def same(actual: Any, expected: Any) -> None:
    expected = expected.detach().numpy() if isinstance(expected, Tensor) else expected
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def cubes(a: Tensor) -> Tensor:
    return (a**3).sum()


# Values ---------------------------------------------------------------------------------------------------------------


def test_gradients_and_values() -> None:
    same(grad(cubes)(x()), 3 * X**2)
    gradient, value = grad_and_value(cubes)(x())
    same(gradient, 3 * X**2)
    same(value, (X**3).sum())
    value, gradient = value_and_grad(cubes)(x())
    same(gradient, 3 * X**2)
    same(value, (X**3).sum())


def test_several_arguments() -> None:
    f = lambda a, b, scale=1.0: (a * a * b).sum() * scale  # noqa: E731
    a, b = grad(f, argnums=(0, 1))(x(), x() + 1, scale=2.0)
    same(a, 4 * X * (X + 1))
    same(b, 2 * X**2)
    same(grad(f, argnums=-1)(x(), x() + 1), X**2)
    same(grad(f, argnums=(1,))(x(), x() + 1)[0], X**2)


def test_aux() -> None:
    f = lambda a: ((a * a).sum(), {"twice": a * 2})  # noqa: E731
    gradient, aux = grad(f, has_aux=True)(x())
    same(gradient, 2 * X)
    same(aux["twice"], 2 * X)
    gradient, (value, aux) = grad_and_value(f, has_aux=True)(x())
    same(value, (X**2).sum())
    (value, aux), gradient = value_and_grad(f, has_aux=True)(x())
    same(aux["twice"], 2 * X)
    _, pull, aux = vjp(lambda a: (a * a, a * 2), x(), has_aux=True)
    same(pull(x())[0], 2 * X * X)
    same(aux, 2 * X)
    _, product, aux = jvp(lambda a: (a * a, a * 2), (x(),), (x(),), has_aux=True)
    same(product, 2 * X * X)
    same(aux, 2 * X)
    for jacobian in (jacrev, jacfwd):
        found, aux = jacobian(lambda a: (a * a, a * 2), has_aux=True)(x())
        same(found, np.diag(2 * X))
        same(aux, 2 * X)
        assert not aux.requires_grad


def test_aux_keeps_the_history_of_an_outer_transform() -> None:
    def outer(a: Tensor) -> Tensor:
        _, aux = grad(lambda b: ((b * b).sum(), b**3), has_aux=True)(a)
        return aux.sum()

    same(grad(outer)(x()), 3 * X**2)


def test_structures() -> None:
    tree = {"w": x(), "rest": [x() + 1, (x() + 2,)]}
    gradient = grad(lambda t: (t["w"] * t["rest"][0] * t["rest"][1][0]).sum())(tree)
    assert isinstance(gradient["rest"][1], tuple)
    same(gradient["w"], (X + 1) * (X + 2))
    same(gradient["rest"][1][0], X * (X + 1))
    jacobian = jacrev(lambda t: {"a": t["w"] * 2, "b": t["rest"][0].sum()})(tree)
    same(jacobian["a"]["w"], 2 * np.eye(3))
    same(jacobian["b"]["rest"][0], np.ones(3))
    same(jacobian["b"]["w"], np.zeros(3))
    _, pull = vjp(lambda t: (t["w"] * 2, [t["rest"][0]]), tree)
    (found,) = pull((x(), [x() + 5]))
    same(found["w"], 2 * X)
    same(found["rest"][0], X + 5)
    _, product = jvp(lambda t: (t["w"] * t["rest"][0],), (tree,), (tree,))
    same(product[0], 2 * X * (X + 1))


def test_what_is_not_used_has_a_zero_gradient() -> None:
    same(grad(lambda a, b: (a * a).sum(), argnums=1)(x(), x()), np.zeros(3))
    same(grad(lambda a: dg.ones(()).double())(x()), np.zeros(3))
    same(vjp(lambda a: dg.ones(2).double(), x())[1](dg.ones(2).double())[0], np.zeros(3))
    same(jvp(lambda a, b: a * 2, (x(), x()), (x(), x()))[1], 2 * X)
    same(jvp(lambda a: dg.ones(2).double(), (x(),), (x(),))[1], np.zeros(2))
    for jacobian in (jacrev, jacfwd):
        same(jacobian(lambda a: dg.ones(2).double())(x()), np.zeros((2, 3)))
    same(hessian(lambda a: a.sum())(x()), np.zeros((3, 3)))


def test_jacobians() -> None:
    matrix = Tensor(Y)
    f = lambda a: matrix @ a.sin()  # noqa: E731
    expected = Y * np.cos(X)
    for found in (
        jacrev(f)(x()),
        jacfwd(f)(x()),
        jacrev(f, chunk_size=1)(x()),
        jacrev(f, chunk_size=5)(x()),
        jacfwd(f, chunk_size=2)(x()),
    ):
        same(found, expected)
    two = lambda a, b: (a * b, (a + b).sum())  # noqa: E731
    for jacobian in (jacrev, jacfwd):
        (aa, ab), (sa, sb) = jacobian(two, argnums=(0, 1))(x(), x() + 1)
        same(aa, np.diag(X + 1))
        same(ab, np.diag(X))
        same(sa, np.ones(3))
        same(sb, np.ones(3))
    images = Tensor(RNG.standard_normal((2, 3)))
    assert jacrev(lambda a: a.unsqueeze(0) * a.unsqueeze(1))(images).shape == (2, 2, 3, 2, 3)


def test_hessians() -> None:
    same(hessian(cubes)(x()), np.diag(6 * X))
    (aa, ab), (ba, bb) = hessian(lambda a, b: (a * a * b).sum(), argnums=(0, 1))(x(), x() + 1)
    same(aa, np.diag(2 * (X + 1)))
    same(ab, np.diag(2 * X))
    same(ba, np.diag(2 * X))
    same(bb, np.zeros((3, 3)))


def test_linearize_calls_once() -> None:
    calls = []

    def f(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        calls.append(1)
        return {"product": a * b, "sum": (a + b).sum()}

    out, derivative = linearize(f, x(), x() + 1)
    same(out["product"], X * (X + 1))
    for tangent in (X, X * 2):
        found = derivative(Tensor(tangent), Tensor(tangent))
        same(found["product"], tangent * (2 * X + 1))
        same(found["sum"], 2 * tangent.sum())
    same(vmap(derivative)(Tensor(np.eye(3)), Tensor(np.zeros((3, 3))))["product"], np.diag(X + 1))
    assert len(calls) == 1


# Nesting --------------------------------------------------------------------------------------------------------------


def test_third_order() -> None:
    f = lambda a: a.sin() * a**2  # noqa: E731
    v = Tensor(np.asarray(0.7))
    third = grad(grad(grad(f)))(v)
    expected = -np.cos(0.7) * 0.7**2 - 6 * np.sin(0.7) * 0.7 + 6 * np.cos(0.7)
    same(third, expected)
    one = lambda g: lambda a: jvp(g, (a,), (dg.ones_like(a),))[1]  # noqa: E731
    same(one(one(one(f)))(v), expected)
    same(one(grad(one(f)))(v), expected)
    same(grad(one(grad(f)))(v), expected)
    same(jacrev(jacfwd(jacrev(f)))(v), expected)
    same(jacfwd(jacrev(jacfwd(f)))(v), expected)


def test_a_derivative_of_an_outer_variable() -> None:
    """Perturbations stay apart: the derivative of x * d/dy (x + y) is 1."""
    v = Tensor(np.asarray(2.0))
    same(grad(lambda a: a * grad(lambda b: a + b)(v))(v), 1.0)
    same(jvp(lambda a: a * jvp(lambda b: a + b, (v,), (dg.ones_like(v),))[1], (v,), (dg.ones_like(v),))[1], 1.0)


def test_maps_and_derivatives() -> None:
    rows = Tensor(Y)
    same(vmap(grad(cubes))(rows), 3 * Y**2)
    same(grad(lambda r: vmap(cubes)(r).sum())(rows), 3 * Y**2)
    same(vmap(hessian(cubes))(rows), np.stack([np.diag(6 * row) for row in Y]))
    same(vmap(jacrev(lambda a: a * a.sum()))(rows)[1], np.eye(3) * Y[1].sum() + Y[1][:, None])
    same(jacrev(vmap(cubes))(rows)[0, 0], 3 * Y[0] ** 2)
    same(vmap(lambda a, t: jvp(cubes, (a,), (t,))[1])(rows, rows), (3 * Y**3).sum(1))
    same(vmap(vmap(grad(lambda a: a**3)))(rows), 3 * Y**2)
    outer = grad(lambda s: vmap(lambda a: grad(lambda b: (b**3).sum() * s)(a))(rows).sum())(Tensor(np.asarray(1.0)))
    same(outer, 3 * (Y**2).sum())


def test_a_vector_jacobian_product_from_outside_used_inside() -> None:
    _, pull = vjp(lambda a: a**3, x())
    same(vmap(pull)(Tensor(np.eye(3)))[0], np.diag(3 * X**2))
    same(vmap(pull, in_dims=1, out_dims=1)(Tensor(np.eye(3)))[0], np.diag(3 * X**2))


# With ordinary autograd around ---------------------------------------------------------------------------------------


def test_results_carry_history() -> None:
    leaf = x().requires_grad_()
    gradient = grad(cubes)(leaf)
    assert gradient.requires_grad
    gradient.sum().backward()
    same(leaf.grad, 6 * X)
    for make in (
        lambda: jacrev(lambda a: a**3)(leaf).sum(),
        lambda: jacfwd(lambda a: a**3)(leaf).sum(),
        lambda: vjp(lambda a: a**3, leaf)[1](dg.ones(3).double())[0].sum(),
        lambda: jvp(lambda a: a**3, (leaf,), (dg.ones(3).double(),))[1].sum(),
        lambda: vmap(grad(lambda a: a**3))(leaf).sum(),
    ):
        leaf.grad = None
        make().backward()
        same(leaf.grad, 6 * X)


def test_captured_tensors_get_gradients() -> None:
    w = x().requires_grad_()
    grad(lambda a: (a * a * w).sum())(x()).sum().backward()
    same(w.grad, 2 * X)
    assert not grad(lambda a: (a * a).sum())(x()).requires_grad


def test_the_arguments_are_left_alone() -> None:
    leaf = x().requires_grad_()
    grad(cubes)(leaf)
    assert leaf.grad is None
    plain = x()
    grad(cubes)(plain)
    assert not plain.requires_grad and plain.grad is None


def test_no_grad_outside_and_inside() -> None:
    leaf = x().requires_grad_()
    with dg.no_grad():
        gradient = grad(cubes)(leaf)
        product = jvp(cubes, (leaf,), (x(),))[1]
        assert not dg.is_grad_enabled()
    same(gradient, 3 * X**2)
    assert not gradient.requires_grad and not product.requires_grad

    def partly(a: Tensor) -> Tensor:
        with dg.no_grad():
            constant = a * 2
        return (a * constant).sum()

    same(grad(partly)(x()), 2 * X)

    def frozen(a: Tensor) -> Tensor:
        with dg.no_grad():
            inner = grad(cubes)(a)
        return (a * inner).sum()

    same(grad(frozen)(x()), 3 * X**2)


def test_tangents_with_history() -> None:
    t = x().requires_grad_()
    out, product = jvp(lambda a: a**3, (x(),), (t,))
    assert product.requires_grad and not out.requires_grad
    product.sum().backward()
    same(t.grad, 3 * X**2)


# Networks -------------------------------------------------------------------------------------------------------------


def network() -> Any:
    dg.manual_seed(0)
    return dg.nn.Sequential(dg.nn.Linear(3, 4), dg.nn.Tanh(), dg.nn.Linear(4, 2)).double()


def test_gradients_of_each_sample() -> None:
    model = network()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    inputs, targets = Tensor(RNG.standard_normal((5, 3))), Tensor(np.array([0, 1, 1, 0, 1]))

    def loss(parameters: Any, sample: Tensor, target: Tensor) -> Tensor:
        return dg.nn.functional.cross_entropy(functional_call(model, parameters, sample), target)

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, targets)
    chunked = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=2)(parameters, inputs, targets)
    for k in range(5):
        model.zero_grad()
        dg.nn.functional.cross_entropy(model(inputs[k]), targets[k]).backward()
        for name, p in model.named_parameters():
            same(found[name][k], p.grad)
            same(chunked[name][k], p.grad)


def test_gradients_of_each_image() -> None:
    dg.manual_seed(0)
    model = dg.nn.Sequential(
        dg.nn.Conv2d(2, 4, 3, padding=1), dg.nn.GroupNorm(2, 4), dg.nn.ReLU(), dg.nn.MaxPool2d(2),
        dg.nn.Conv2d(4, 4, 2, groups=2, bias=False), dg.nn.AdaptiveAvgPool2d(1), dg.nn.Flatten(), dg.nn.Linear(4, 3),
    ).double()  # fmt: skip
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    images, targets = Tensor(RNG.standard_normal((4, 2, 6, 6))), Tensor(np.array([0, 2, 1, 2]))

    def loss(parameters: Any, image: Tensor, target: Tensor) -> Tensor:
        scores = functional_call(model, parameters, (image.unsqueeze(0),))
        return dg.nn.functional.cross_entropy(scores, target.unsqueeze(0))

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, targets)
    for k in range(4):
        one = grad(loss)(parameters, images[k], targets[k])
        for name in parameters:
            same(found[name][k], one[name])


@pytest.mark.parametrize(
    "make",
    [
        lambda: dg.nn.LSTM(3, 4, num_layers=2, batch_first=True),
        lambda: dg.nn.GRU(3, 4, bidirectional=True, batch_first=True),
        lambda: dg.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        lambda: dg.nn.Sequential(dg.nn.LayerNorm(4), dg.nn.Linear(4, 3), dg.nn.GELU()),
        lambda: dg.nn.Bilinear(4, 4, 2),
    ],
    ids=["lstm", "gru", "transformer", "layer norm", "bilinear"],
)
def test_gradients_of_each_sequence(make: Callable[[], Any]) -> None:
    dg.manual_seed(0)
    model = make().double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    size = 3 if isinstance(model, (dg.nn.LSTM, dg.nn.GRU)) else 4
    sequences = Tensor(RNG.standard_normal((3, 1, 5, size)))

    def loss(parameters: Any, sequence: Tensor) -> Tensor:
        given = (sequence, sequence) if isinstance(model, dg.nn.Bilinear) else (sequence,)
        out = functional_call(model, parameters, given)
        out = out[0] if isinstance(out, tuple) else out
        return (out * out).sum()

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, sequences)
    for k in range(3):
        one = grad(loss)(parameters, sequences[k])
        for name in parameters:
            np.testing.assert_allclose(found[name][k].numpy(), one[name].numpy(), rtol=1e-8, atol=1e-10)


def test_ensembles() -> None:
    models = [network() for _ in range(3)]
    for number, model in enumerate(models):
        for p in model.parameters():
            p.data.mul_(number + 1)
    parameters, buffers = stack_module_state(models)
    base = network()
    inputs = Tensor(RNG.standard_normal((5, 3)))
    assert buffers == {}
    out = vmap(lambda p, batch: functional_call(base, p, (batch,)), in_dims=(0, None))(parameters, inputs)
    for k, model in enumerate(models):
        same(out[k], model(inputs))
    out.sum().backward()
    models[1](inputs).sum().backward()
    for name, p in models[1].named_parameters():
        same(parameters[name].grad[1], p.grad)  # type: ignore[index]


def test_hessian_of_a_network() -> None:
    model = network()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    inputs = Tensor(RNG.standard_normal((5, 3)))
    loss = lambda p: (functional_call(model, p, (inputs,)) ** 2).mean()  # noqa: E731
    found = hessian(loss)(parameters)
    names = list(parameters)
    leaves = [parameters[name].clone().requires_grad_() for name in names]
    value = loss(dict(zip(names, leaves, strict=True)))
    first = dg.autograd.grad(value, leaves, create_graph=True)
    for name, row in zip(names, first, strict=True):
        assert row is not None
        for place in np.ndindex(tuple(row.shape)):
            second = dg.autograd.grad(row[place], leaves, retain_graph=True, materialize_grads=True)
            for other, expected in zip(names, second, strict=True):
                same(found[name][other][place], expected)


# As PyTorch -----------------------------------------------------------------------------------------------------------

Case = Callable[[Any], Any]


def partly_frozen(n: Any) -> Callable[[Any], Any]:
    def f(a: Any) -> Any:
        with n.t.no_grad():
            b = a * 2
        return (a * b).sum()

    return f


CASES: dict[str, Case] = {
    "grad": lambda n: n.grad(n.cubes)(n.x),
    "grad of a leaf": lambda n: n.grad(n.cubes)(n.leaf),
    "grad inside no_grad": lambda n: n.t.no_grad()(lambda: n.grad(n.cubes)(n.leaf))(),
    "grad around no_grad": lambda n: n.grad(partly_frozen(n))(n.x),
    "grad of a closure": lambda n: n.grad(lambda a: (a * n.leaf).sum())(n.x),
    "grad of a closure of what it is not": lambda n: n.grad(lambda a: (a * a).sum() + n.leaf.sum())(n.x),
    "grad of integers": lambda n: n.grad(n.cubes)(n.t.arange(3)),
    "grad of a vector": lambda n: n.grad(lambda a: a)(n.x),
    "grad of no tensor": lambda n: n.grad(lambda a: 1.0)(n.x),
    "grad at no tensor": lambda n: n.grad(lambda a: a * a)(2.0),
    "grad at a mixed tree": lambda n: n.grad(lambda d: d["a"].sum())({"a": n.x, "b": 1}),
    "argnums out of range": lambda n: n.grad(n.cubes, argnums=1)(n.x),
    "argnums negative": lambda n: n.grad(lambda a, b: (a * b * b).sum(), argnums=-1)(n.x, n.x),
    "argnums twice": lambda n: n.grad(lambda a, b: (a * b).sum(), argnums=(0, 0))(n.x, n.x),
    "argnums twice, negative": lambda n: n.grad(lambda a, b: (a * b).sum(), argnums=(1, -1))(n.x, n.x),
    "argnums empty": lambda n: n.grad(n.cubes, argnums=())(n.x),
    "argnums list": lambda n: n.grad(n.cubes, argnums=[0])(n.x),
    "aux": lambda n: n.grad(lambda a: (n.cubes(a), a * 2), has_aux=True)(n.x),
    "aux of a leaf": lambda n: n.grad(lambda a: (n.cubes(a), a * 2), has_aux=True)(n.leaf),
    "aux missing": lambda n: n.grad(n.cubes, has_aux=True)(n.x),
    "aux of no tensor": lambda n: n.grad(lambda a: (n.cubes(a), "text"), has_aux=True)(n.x),
    "grad_and_value": lambda n: n.grad_and_value(n.cubes)(n.leaf),
    "grad of grad": lambda n: n.grad(lambda a: n.grad(n.cubes)(a).sum())(n.x),
    "vjp": lambda n: n.vjp(lambda a: a**3, n.x)[1](n.x),
    "vjp of a leaf": lambda n: (lambda out, pull: (out, *pull(n.x)))(*n.vjp(lambda a: a**3, n.leaf)),
    "vjp, wrong shape": lambda n: n.vjp(lambda a: a * 2, n.x)[1](n.x[:2]),
    "vjp, wrong structure": lambda n: n.vjp(lambda a: (a * 2, a), n.x)[1](n.x),
    "vjp of two": lambda n: n.vjp(lambda a: (a * 2, a), n.x)[1]((n.x, n.x)),
    "vjp of no tensor": lambda n: n.vjp(lambda a: 2, n.x),
    "vjp of nothing": lambda n: n.vjp(lambda a: (), n.x),
    "vjp at two": lambda n: n.vjp(lambda a, b: a * b, n.x, n.x)[1](n.x),
    "jvp": lambda n: n.jvp(lambda a: a**3, (n.x,), (n.x,)),
    "jvp of a leaf": lambda n: n.jvp(lambda a: a**3, (n.leaf,), (n.x,)),
    "jvp of a tangent with history": lambda n: n.jvp(lambda a: a**3, (n.x,), (n.leaf,)),
    "jvp unused": lambda n: n.jvp(lambda a, b: a * 2, (n.x, n.x), (n.x, n.x)),
    "jvp constant": lambda n: n.jvp(lambda a: n.x[:2], (n.x,), (n.x,)),
    "jvp constant, strict": lambda n: n.jvp(lambda a: n.x[:2], (n.x,), (n.x,), strict=True),
    "jvp strict": lambda n: n.jvp(lambda a: a * 2, (n.x,), (n.x,), strict=True),
    "jvp of no tuple": lambda n: n.jvp(lambda a: a * 2, n.x, n.x),
    "jvp of lists": lambda n: n.jvp(lambda a: a * 2, [n.x], [n.x]),
    "jvp, lengths": lambda n: n.jvp(lambda a: a * 2, (n.x,), (n.x, n.x)),
    "jvp, shapes": lambda n: n.jvp(lambda a: a * 2, (n.x,), (n.x[:2],)),
    "jvp of nothing": lambda n: n.jvp(lambda: n.x, (), ()),
    "jvp at a number": lambda n: n.jvp(lambda a: a * 2, (2.0,), (1.0,)),
    "jvp of no tensor": lambda n: n.jvp(lambda a: 2, (n.x,), (n.x,)),
    "jvp at integers": lambda n: n.jvp(lambda a: a * 2, (n.t.arange(3),), (n.t.arange(3),)),
    "jvp, aux": lambda n: n.jvp(lambda a: (a * 2, a), (n.x,), (n.x,), has_aux=True),
    "jacrev": lambda n: n.jacrev(lambda a: a**3)(n.x),
    "jacfwd": lambda n: n.jacfwd(lambda a: a**3)(n.x),
    "jacrev of a leaf": lambda n: n.jacrev(lambda a: a**3)(n.leaf),
    "jacfwd of a leaf": lambda n: n.jacfwd(lambda a: a**3)(n.leaf),
    "jacrev of a closure": lambda n: n.jacrev(lambda a: a * n.leaf)(n.x),
    "jacfwd of a closure": lambda n: n.jacfwd(lambda a: a * n.leaf)(n.x),
    "jacrev of a scalar": lambda n: n.jacrev(n.cubes)(n.x),
    "jacrev, argnums": lambda n: n.jacrev(lambda a, b: a * b, argnums=(0, 1))(n.x, n.x),
    "jacfwd, argnums": lambda n: n.jacfwd(lambda a, b: a * b, argnums=(0, 1))(n.x, n.x),
    "jacrev, aux": lambda n: n.jacrev(lambda a: (a * 2, a), has_aux=True)(n.x),
    "jacfwd, aux": lambda n: n.jacfwd(lambda a: (a * 2, a), has_aux=True)(n.x),
    "jacrev of no tensor": lambda n: n.jacrev(lambda a: 1)(n.x),
    "jacfwd of no tensor": lambda n: n.jacfwd(lambda a: 1)(n.x),
    "jacrev at integers": lambda n: n.jacrev(lambda a: a * 2)(n.t.arange(3)),
    "jacfwd at integers": lambda n: n.jacfwd(lambda a: a * 2)(n.t.arange(3)),
    "jacrev, chunk_size": lambda n: n.jacrev(n.cubes, chunk_size=0)(n.x),
    "hessian": lambda n: n.hessian(n.cubes)(n.x),
    "hessian of a leaf": lambda n: n.hessian(n.cubes)(n.leaf),
    "linearize": lambda n: (lambda out, derivative: (out, derivative(n.x)))(*n.linearize(lambda a: a**3, n.x)),
    "linearize of a leaf": lambda n: (lambda out, derivative: (out, derivative(n.x)))(
        *n.linearize(lambda a: a**3, n.leaf)
    ),
    "linearize, count": lambda n: n.linearize(lambda a, b: a * b, n.x, n.x)[1](n.x),
    "linearize, shapes": lambda n: n.linearize(lambda a, b: a * b, n.x, n.x)[1](n.x, n.x[:2]),
    "linearize, dtypes": lambda n: n.linearize(lambda a, b: a * b, n.x, n.x)[1](n.x, n.x.float()),
    "linearize at integers": lambda n: n.linearize(lambda a: a, n.t.arange(3)),
    "in place of a clone": lambda n: n.grad(lambda a: a.clone().mul_(2).sum())(n.x),
    "in place of the argument": lambda n: n.grad(lambda a: a.mul_(2).sum())(n.x.clone()),
    "item": lambda n: n.grad(lambda a: n.cubes(a) * a[0].item())(n.x),
    "vmap of grad": lambda n: n.vmap(n.grad(n.cubes))(n.rows),
    "vmap of grad of a leaf": lambda n: n.vmap(n.grad(n.cubes))(n.rows.requires_grad_()),
    "vmap of hessian": lambda n: n.vmap(n.hessian(n.cubes))(n.rows),
    "vmap of jacfwd of jacrev": lambda n: n.vmap(n.jacfwd(n.jacrev(lambda a: a.sin() * a.sum())))(n.rows),
    "grad of vmap": lambda n: n.grad(lambda r: n.vmap(n.cubes)(r).sum())(n.rows),
    "third order": lambda n: n.grad(n.grad(n.grad(lambda a: a.sin() * a**2)))(n.x[0]),
}


def namespace(library: Any, functional: Any, array: Callable[[Any], Any]) -> SimpleNamespace:
    names = "grad grad_and_value vjp jvp jacrev jacfwd hessian linearize vmap".split()
    return SimpleNamespace(
        t=library,
        x=array(X),
        leaf=array(X + 1).requires_grad_(),
        rows=array(Y),
        cubes=cubes,
        **{name: getattr(functional, name) for name in names},
    )


def flat(result: Any) -> list[Any]:
    return [leaf for part in result for leaf in flat(part)] if isinstance(result, (tuple, list)) else [result]


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_as_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")

    def outcome(n: SimpleNamespace) -> Any:
        try:
            return CASES[name](n)
        except Exception as error:
            return error

    theirs = outcome(namespace(torch, torch.func, lambda array: torch.from_numpy(array.copy())))
    ours = outcome(namespace(dg, dg.func, lambda array: Tensor(array.copy())))
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), ours
        return
    assert not isinstance(ours, Exception), ours
    for one, other in zip(flat(ours), flat(theirs), strict=True):
        if callable(other) and not isinstance(other, torch.Tensor):
            continue
        assert tuple(one.shape) == tuple(other.shape)
        assert one.requires_grad == other.requires_grad
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_no_cycles_are_left() -> None:
    """What a transform has computed goes with its result, not with the next garbage collection."""
    import gc

    from distgrad import func

    x = dg.ones(3, dtype=dg.float64)

    def run() -> None:
        func.hessian(lambda x: (x**3).sum())(x)
        func.vmap(func.grad(lambda x: x.sin()))(x)
        func.jvp(lambda x: x.exp(), (x,), (x,))

    run()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(20):
            run()
        assert len(gc.get_objects()) - before < 40
    finally:
        gc.enable()
