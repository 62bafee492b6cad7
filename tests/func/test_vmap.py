"""``vmap`` itself: what is mapped and where it comes out, levels, chunks, changes in place, random numbers, errors."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.func import grad, vmap

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)


def x(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def same(actual: Tensor, expected: Any) -> None:
    np.testing.assert_allclose(actual.numpy(), np.asarray(expected), rtol=1e-6, atol=1e-6)


# What is mapped ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", range(-3, 3))
def test_maps_over_any_dimension(dim: int) -> None:
    same(vmap(lambda a: a.sum(0), in_dims=dim)(Tensor(X)), np.moveaxis(X, dim, 0).sum(1))


@pytest.mark.parametrize("dim", range(-3, 3))
def test_puts_the_batch_anywhere(dim: int) -> None:
    same(vmap(lambda a: a * 2, out_dims=dim)(Tensor(X)), np.moveaxis(X * 2, 0, dim))


def test_shared_arguments() -> None:
    a, w = x(5, 3), x(3)
    same(vmap(lambda a, w: a @ w, in_dims=(0, None))(a, w), a.numpy() @ w.numpy())
    same(vmap(lambda a, scale: a * scale, in_dims=(0, None))(a, 3.0), a.numpy() * 3)


def test_nested_arguments_and_results() -> None:
    tree = {"p": x(3, 2), "q": [x(2, 3), x(4)]}
    out = vmap(
        lambda tree, k: {"sum": tree["p"].sum() + tree["q"][0].sum(), "rest": (tree["q"][1] * k,)},
        in_dims=({"p": 0, "q": [1, None]}, 0),
        out_dims={"sum": 0, "rest": (1,)},
    )(tree, x(3))
    assert isinstance(out, dict) and isinstance(out["rest"], tuple)
    same(out["sum"], tree["p"].numpy().sum(1) + tree["q"][0].numpy().sum(0))
    same(out["rest"][0], np.outer(tree["q"][1].numpy(), x(3).numpy()))


def test_in_dims_of_a_dictionary_go_by_key() -> None:
    a, b = x(3, 2), x(2, 3)
    same(vmap(lambda d: d["a"] + d["b"], in_dims=({"b": 1, "a": 0},))({"a": a, "b": b}), a.numpy() + b.numpy().T)


def test_keyword_arguments_are_shared() -> None:
    a = x(3, 4)
    assert vmap(lambda a, b: a + b)(a, b=a).shape == (3, 3, 4)
    same(vmap(lambda a, scale=1.0: a * scale)(a, scale=2.0), a.numpy() * 2)


def test_named_tuples_come_back() -> None:
    out = vmap(lambda a: dg.max(a, 0))(x(3, 4))
    same(out.values, x(3, 4).numpy().max(1))
    assert out.indices.dtype == np.int64


def test_results_that_do_not_differ() -> None:
    same(vmap(lambda a: dg.ones(2))(x(3, 4)), np.ones((3, 2)))
    same(vmap(lambda a: dg.ones(2), out_dims=None)(x(3, 4)), np.ones(2))
    assert vmap(lambda a: (a, 7), out_dims=(0, None))(x(3, 4))[1] == 7


def test_no_samples() -> None:
    assert vmap(lambda a: (a @ a.mT).softmax(-1).sum(0))(dg.empty(0, 3, 4)).shape == (0, 3)
    with pytest.raises(RuntimeError, match="vmap over no samples"):
        vmap(lambda a: dg.histc(a, 3))(dg.empty(0, 3))


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("out_dim", [0, 1])
def test_chunks(chunk_size: int, out_dim: int) -> None:
    sizes = []

    def f(a: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(a)
        return a * w, a.sum()

    a, w = x(4, 5), x(4)
    out, total = vmap(f, in_dims=(1, None), out_dims=(out_dim, 0), chunk_size=chunk_size)(a, w)
    same(out, np.moveaxis(a.numpy().T * w.numpy(), 0, out_dim))
    same(total, a.numpy().sum(0))
    assert len(sizes) == -(-5 // chunk_size)


# Levels --------------------------------------------------------------------------------------------------------------


def test_three_levels() -> None:
    a, b, c = x(2), x(3), x(4)
    out = vmap(lambda a: vmap(lambda b: vmap(lambda c: a * b + c)(c))(b))(a)
    same(out, a.numpy()[:, None, None] * b.numpy()[:, None] + c.numpy())


def test_each_level_maps_another_dimension() -> None:
    out = vmap(vmap(vmap(lambda v: v * 2, in_dims=0), in_dims=1), in_dims=2)(Tensor(X))
    same(out, X.transpose(2, 1, 0) * 2)


def test_tensors_of_outer_levels_in_a_closure() -> None:
    a = x(3, 4)
    out = vmap(lambda row: vmap(lambda v: v * row.sum(), in_dims=0)(row))(a)
    same(out, a.numpy() * a.numpy().sum(1, keepdims=True))
    out = vmap(lambda row: vmap(lambda v: row, in_dims=0)(dg.ones(2)))(a)  # batched at the outer level alone
    same(out, np.repeat(a.numpy()[:, None], 2, 1))


def test_matrices_of_different_levels() -> None:
    a, b = x(3, 2, 4), x(5, 4, 2)
    same(
        vmap(lambda p: vmap(lambda q: p @ q)(b))(a),
        a.numpy()[:, None] @ b.numpy()[None],
    )
    same(
        vmap(lambda q: vmap(lambda p: p @ q, out_dims=-1)(a))(b),
        np.moveaxis(a.numpy()[None] @ b.numpy()[:, None], 1, -1),
    )


def test_a_level_ends_with_its_vmap() -> None:
    kept: list[Tensor] = []
    vmap(lambda a: kept.append(a) or a)(x(3))  # type: ignore[func-returns-value]
    with pytest.raises(RuntimeError, match="after that vmap has ended"):
        kept[0] + 1
    assert (x(3) + 1).shape == (3,)  # and nothing is left of it


def test_nothing_is_left_of_a_vmap_that_failed() -> None:
    def fail(a: Tensor) -> Tensor:
        raise KeyError("no")

    with pytest.raises(KeyError):
        vmap(fail)(x(3))
    assert not (x(3) + 1)._batched
    assert dg.rand(2).shape == (2,)


# In the order of autograd --------------------------------------------------------------------------------------------


def test_history_goes_through() -> None:
    a, w = x(5, 3).requires_grad_(), x(3).requires_grad_()
    vmap(lambda a, w: (a * w).sum() ** 2, in_dims=(0, None))(a, w).sum().backward()
    totals = (a.detach().numpy() @ w.detach().numpy())[:, None]
    same(a.grad, 2 * totals * w.detach().numpy())  # type: ignore[arg-type]
    same(w.grad, (2 * totals * a.detach().numpy()).sum(0))  # type: ignore[arg-type]


def test_no_grad_inside() -> None:
    def f(a: Tensor) -> Tensor:
        with dg.no_grad():
            b = a * 2
        assert not b.requires_grad and a.requires_grad
        return a * b

    a = x(3).requires_grad_()
    vmap(f)(a).sum().backward()
    same(a.grad, 2 * a.detach().numpy())  # type: ignore[arg-type]


def test_detach_inside() -> None:
    a = x(3).requires_grad_()
    vmap(lambda v: v * v.detach())(a).sum().backward()
    same(a.grad, a.detach().numpy())  # type: ignore[arg-type]


# What a tensor inside says of itself ---------------------------------------------------------------------------------


def test_shape_and_layout_are_those_of_a_sample() -> None:
    seen = {}

    def f(a: Tensor) -> Tensor:
        seen.update(shape=a.shape, ndim=a.ndim, numel=a.numel(), strides=a.stride(), contiguous=a.is_contiguous())
        assert a.stride(0) == a.stride()[0]
        assert "Batched(level=" in repr(a)
        return a

    vmap(f)(Tensor(X))
    assert seen == {"shape": (3, 4), "ndim": 2, "numel": 12, "strides": (4, 1), "contiguous": True}
    vmap(f, in_dims=1)(Tensor(X))
    assert seen == {"shape": (2, 4), "ndim": 2, "numel": 8, "strides": (12, 1), "contiguous": False}


REFUSALS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "item": (lambda a: a.sum().item(), "item"),
    "float": (lambda a: float(a.sum()), "looks at the values"),
    "int": (lambda a: int(a.sum()), "looks at the values"),
    "bool": (lambda a: a if a.sum() > 0 else -a, "data-dependent control flow"),
    "tolist": (lambda a: a.tolist(), "looks at the values"),
    "numpy": (lambda a: a.numpy(), "looks at the values"),
    "nonzero": (lambda a: a.nonzero(), "Data-dependent shapes"),
    "unique": (lambda a: a.unique(), "Data-dependent shapes"),
    "mask": (lambda a: a[a > 0], "boolean mask"),
    "assigned mask": (lambda a: a.clone().__setitem__(a > 0, 0.0), "boolean mask"),
    "masked_select": (lambda a: a.masked_select(a > 0), "boolean mask"),
    "backward": (lambda a: a.sum().backward(), "inside a functorch transform"),
    "a shared tensor in place": (lambda a: SHARED.add_(a), "all samples share"),
}
SHARED = dg.zeros(4)


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses_what_looks_at_values(name: str) -> None:
    function, message = REFUSALS[name]
    with pytest.raises(RuntimeError, match=message):
        vmap(function)(x(3, 4))


def test_data_of_many_samples_make_no_tensor() -> None:
    with pytest.raises(RuntimeError, match="clone"):
        vmap(lambda a: dg.tensor(a))(x(3))
    with pytest.raises(RuntimeError, match="clone"):
        vmap(lambda a: dg.tensor([a, 1.0]))(x(3))


def test_no_deepcopy() -> None:
    import copy

    with pytest.raises(RuntimeError, match="clone"):
        vmap(lambda a: copy.deepcopy(a))(x(3))


# Changes in place ----------------------------------------------------------------------------------------------------


def test_in_place_on_what_differs() -> None:
    a = x(3, 4)
    before = a.numpy().copy()
    out = vmap(lambda v: v.clone().mul_(2).add_(dg.ones(4)))(a)
    same(out, before * 2 + 1)
    same(a, before)
    vmap(lambda v: v.mul_(2))(a)  # of the memory that was mapped
    same(a, before * 2)


def test_in_place_on_views() -> None:
    def f(v: Tensor) -> Tensor:
        out = v.clone()
        out[0] = out[1]
        out[2:] *= 10
        out.view(2, 2)[:, 0].zero_()
        return out

    a = x(3, 4)
    expected = a.numpy().copy()
    expected[:, 0] = expected[:, 1]
    expected[:, 2:] *= 10
    expected[:, [0, 2]] = 0
    same(vmap(f)(a), expected)


def test_in_place_is_differentiated() -> None:
    def f(v: Tensor) -> Tensor:
        out = v * 1
        out[0] = v[1] * v[1]
        out.mul_(v)
        return out.sum()

    a = x(3, 2)
    r, s = a.numpy().T  # s**2 * r + s**2
    same(vmap(grad(f))(a), np.stack([s**2, 2 * s * r + 2 * s], 1))


@pytest.mark.parametrize("make", ["zeros_like", "empty_like", "ones_like", "new_zeros", "new_full"])
def test_new_tensors_like_what_differs_can_be_written(make: str) -> None:
    def f(a: Tensor) -> Tensor:
        made = {
            "zeros_like": lambda: dg.zeros_like(a),
            "empty_like": lambda: dg.empty_like(a),
            "ones_like": lambda: dg.ones_like(a),
            "new_zeros": lambda: a.new_zeros(4),
            "new_full": lambda: a.new_full((4,), 3.0),
        }[make]()
        assert made.shape == (4,)
        return made.copy_(a)

    same(vmap(f)(x(3, 4)), x(3, 4).numpy())
    same(vmap(lambda a: dg.full_like(a, 2))(x(3, 4)), np.full((3, 4), 2))


def test_metadata_in_place() -> None:
    a = x(3, 2, 4)
    same(vmap(lambda v: v.clone().t_() * 2)(a), a.numpy().swapaxes(1, 2) * 2)
    same(vmap(lambda v: v.clone().unsqueeze_(0).squeeze_(0))(a), a.numpy())


# Indexing ------------------------------------------------------------------------------------------------------------

I = Tensor(np.array([[0, -1, 2], [3, 3, 1], [-4, 2, 0], [1, 0, 3], [2, 2, 2]]))  # noqa: E741
J = Tensor(np.array([1, 0, 2, -1, 1]))
M = Tensor(np.array([True, False, True, True]))
INDICES: dict[str, tuple[Callable[..., Any], int]] = {
    "vector": (lambda i, j: i, 1),
    "number": (lambda i, j: j, 1),
    "two": (lambda i, j: (i, i), 2),
    "number and vector": (lambda i, j: (j, i), 2),
    "behind a slice": (lambda i, j: (slice(None), i), 2),
    "apart": (lambda i, j: (i, slice(None), i % 3), 3),
    "numbers apart": (lambda i, j: (j, slice(1, 3), j), 3),
    "with an integer": (lambda i, j: (1, i), 2),
    "with a shared vector": (lambda i, j: (Tensor(np.array([0, 1, 2])), i), 2),
    "with a shared mask": (lambda i, j: (M, i), 2),
    "with None and ...": (lambda i, j: (None, ..., i % 2), 3),
    "matrix": (lambda i, j: i.unsqueeze(1) + Tensor(np.zeros((1, 2), np.int64)), 1),
    "list": (lambda i, j: [i, i], 2),
}


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("mapped", [True, False], ids=["own input", "shared input"])
@pytest.mark.parametrize("dims", [3, 4])
@pytest.mark.filterwarnings("ignore")
def test_positions_that_differ(name: str, mapped: bool, dims: int) -> None:
    index, least = INDICES[name]
    if dims < least:
        pytest.skip("not so many dimensions")
    table = Tensor(np.random.default_rng(1).standard_normal((5, 4, 4, 3, 2)[: dims + 1]))
    source = table if mapped else table[0]
    in_dims = (0 if mapped else None, 0, 0)

    def pick(t: Tensor, i: Tensor, j: Tensor) -> Tensor:
        out: Tensor = t[index(i, j)]
        return out

    def write(t: Tensor, i: Tensor, j: Tensor) -> Tensor:
        out = t * 1 if t._batched or not mapped else t.clone()
        picked = out[index(i, j)]
        out = out + i.sum() * 0.0  # memory of each sample's own
        out[index(i, j)] = picked * 2
        return out

    for f in (pick, write):
        out = vmap(f, in_dims=in_dims)(source, I, J)
        gradients = vmap(grad(lambda *args, f=f: (f(*args) ** 2).sum()), in_dims=in_dims)(source, I, J)
        for k in range(5):
            one = source[k] if mapped else source
            same(out[k], f(one, I[k], J[k]).numpy())
            same(gradients[k], grad(lambda t, k=k, f=f: (f(t, I[k], J[k]) ** 2).sum())(one).numpy())


def test_positions_are_checked() -> None:
    with pytest.raises(IndexError, match="index 4 is out of bounds for dimension 0 with size 4"):
        vmap(lambda a, i: a[i])(x(2, 4), Tensor(np.array([0, 4])))
    with pytest.raises(IndexError, match="must be long, int, byte or bool"):
        vmap(lambda a, i: a[i])(x(2, 4), x(2))
    with pytest.raises(RuntimeError, match="shape mismatch: value tensor of shape"):
        vmap(lambda a, i: a.clone().__setitem__(i, dg.ones(3)))(x(2, 4), Tensor(np.array([[0, 1], [1, 2]])))


@pytest.mark.parametrize("accumulate", [False, True])
def test_index_put(accumulate: bool) -> None:
    a, v = x(5, 4), x(5, 3)
    out = vmap(lambda a, i, v: a.index_put([i], v, accumulate))(a, I, v)
    for k in range(5):
        same(out[k], a[k].index_put([I[k]], v[k], accumulate).numpy())


# Random numbers ------------------------------------------------------------------------------------------------------

DRAWS: dict[str, Callable[[Tensor], Any]] = {
    "rand": lambda a: dg.rand(6),
    "randn": lambda a: dg.randn(6),
    "randint": lambda a: dg.randint(0, 10**6, (6,)),
    "randperm": lambda a: dg.randperm(40),
    "rand_like": lambda a: dg.rand_like(a),
    "dropout": lambda a: dg.nn.functional.dropout(dg.ones(64)),
    "dropout of what differs": lambda a: dg.nn.functional.dropout(a * 0 + 1, 0.5),
    "dropout2d": lambda a: dg.nn.functional.dropout2d(dg.ones(1, 32, 2, 2)),
    "alpha_dropout": lambda a: dg.nn.functional.alpha_dropout(dg.ones(64), training=True),
    "rrelu": lambda a: dg.nn.functional.rrelu(a * 0 - 1, training=True),
    "gumbel_softmax": lambda a: dg.nn.functional.gumbel_softmax(dg.ones(9), hard=False),
    "bernoulli": lambda a: dg.bernoulli(dg.full((64,), 0.5)),
    "normal": lambda a: dg.normal(0.0, 1.0, (6,)),
    "normal_": lambda a: (a * 1).normal_(),
    "uniform_": lambda a: (a * 1).uniform_(),
    "exponential_": lambda a: (a * 1).exponential_(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_randomness(name: str) -> None:
    a = x(3, 50)
    with pytest.raises(RuntimeError, match="called random operation while in randomness error mode"):
        vmap(DRAWS[name])(a)
    dg.manual_seed(1)
    together = vmap(DRAWS[name], randomness="same")(a)
    dg.manual_seed(1)
    alone = DRAWS[name](a[0])
    for k in range(3):
        same(together[k], alone.numpy())
    different = vmap(DRAWS[name], randomness="different")(a)
    assert different.shape == together.shape
    assert different.dtype == together.dtype
    assert not np.array_equal(different[0].numpy(), different[1].numpy())
    assert not np.array_equal(different[1].numpy(), different[2].numpy())


PARAMETERS: dict[str, Callable[[Tensor], Any]] = {
    "bernoulli": lambda p: dg.bernoulli(p),
    "poisson": lambda p: dg.poisson(p * 100),
    "normal": lambda p: dg.normal(p, 1.0),
    "normal of both": lambda p: dg.normal(p, p),
    "multinomial": lambda p: dg.multinomial(p, 30, True),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_distributions_that_differ(name: str) -> None:
    p = dg.rand(3, 50) * 0 + 0.5
    with pytest.raises(RuntimeError, match="randomness error mode"):
        vmap(PARAMETERS[name])(p)
    with pytest.raises(RuntimeError, match="cannot be the same for all samples"):
        vmap(PARAMETERS[name], randomness="same")(p)
    drawn = vmap(PARAMETERS[name], randomness="different")(p).numpy()
    assert drawn.shape[0] == 3
    assert not np.array_equal(drawn[0], drawn[1])


def test_distributions_follow_their_parameters() -> None:
    p = Tensor(np.array([0.0, 1.0], np.float32))
    drawn = vmap(lambda p: dg.bernoulli(p.expand(20)), randomness="different")(p)
    same(drawn, np.repeat([[0.0], [1.0]], 20, 1))
    drawn = vmap(lambda m: dg.normal(m.expand(500), 0.1), randomness="different")(p)
    np.testing.assert_allclose(drawn.numpy().mean(1), [0, 1], atol=0.05)


def test_draws_of_each_level() -> None:
    def draw(a: Tensor) -> Tensor:
        return dg.rand(2)

    inner_same = vmap(vmap(draw, randomness="same"), randomness="different")(x(3, 4)).numpy()
    assert (inner_same == inner_same[:, :1]).all() and not (inner_same[0] == inner_same[1]).any()
    outer_same = vmap(vmap(draw, randomness="different"), randomness="same")(x(3, 4)).numpy()
    assert (outer_same == outer_same[:1]).all() and not (outer_same[:, 0] == outer_same[:, 1]).any()
    with pytest.raises(RuntimeError, match="randomness error mode"):
        vmap(vmap(draw, randomness="same"))(x(3, 4))


def test_in_place_draws_of_a_shared_tensor() -> None:
    with pytest.raises(RuntimeError, match="all samples share"):
        vmap(lambda a: dg.zeros(4).normal_(), randomness="different")(x(3))
    with pytest.raises(RuntimeError, match="cannot draw different numbers"):
        vmap(lambda a: dg.nn.init.normal_(dg.zeros(4)), randomness="different")(x(3))


# Layers with statistics and targets ----------------------------------------------------------------------------------


def test_batch_norm_with_statistics_of_each() -> None:
    F = dg.nn.functional
    a, mean, var = x(3, 8, 2), dg.zeros(3, 2), dg.ones(3, 2)
    out = vmap(lambda a, m, v: F.batch_norm(a, m, v, training=True))(a, mean, var)
    for k in range(3):
        m, v = dg.zeros(2), dg.ones(2)
        same(out[k], F.batch_norm(a[k], m, v, training=True).numpy())
        same(mean[k], m.numpy())
        same(var[k], v.numpy())
        same(vmap(lambda a, m, v: F.batch_norm(a, m, v))(a, mean, var)[k], F.batch_norm(a[k], m, v).numpy())
    with pytest.raises(RuntimeError, match="running statistics"):
        vmap(lambda a: F.batch_norm(a, dg.zeros(2), dg.ones(2), training=True))(a)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 4, 3)])
def test_targets_that_differ(reduction: str, weighted: bool, smoothing: float, shape: tuple[int, ...]) -> None:
    F = dg.nn.functional
    logits = x(5, *shape)
    places = shape[:-1] if len(shape) < 3 else (shape[0], shape[2])
    target = Tensor(np.random.default_rng(3).integers(0, 4, (5, *places)))
    target[0] = -100 if places else 1
    weight = dg.tensor([1.0, 2.0, 0.5, 3.0]) if weighted else None

    def loss(a: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(a, t, weight, reduction=reduction, label_smoothing=smoothing)

    out = vmap(loss)(logits, target)
    gradient = vmap(grad(lambda a, t: loss(a, t).sum()))(logits, target)
    for k in range(5):
        same(out[k], loss(logits[k], target[k]).numpy())
        same(gradient[k], grad(lambda a, k=k: loss(a, target[k]).sum())(logits[k]).numpy())
    with pytest.raises(IndexError, match="Target 4 is out of bounds"):
        vmap(loss)(logits, target * 0 + 4)


def test_embedding_tables_of_each() -> None:
    F = dg.nn.functional
    tables, index = x(3, 5, 2), Tensor(np.array([[0, 4, 4], [1, 2, 0], [3, 3, 3]]))
    for frequency in (False, True):

        def loss(table: Tensor, i: Tensor, frequency: bool = frequency) -> Tensor:
            return (F.embedding(i, table, padding_idx=3, scale_grad_by_freq=frequency) ** 2).sum()

        found = vmap(grad(loss))(tables, index)
        for k in range(3):
            same(found[k], grad(loss)(tables[k], index[k]).numpy())


def test_attention_masks_of_each() -> None:
    F = dg.nn.functional
    q, mask = x(3, 2, 4, 8), dg.rand(3, 4, 4) > 0.4
    out = vmap(lambda q, m: F.scaled_dot_product_attention(q, q, q, m))(q, mask)
    for k in range(3):
        same(out[k], F.scaled_dot_product_attention(q[k], q[k], q[k], mask[k]).numpy())


def test_max_unpool_of_each() -> None:
    F = dg.nn.functional
    a = x(3, 1, 2, 4, 4)
    out = vmap(lambda a: F.max_unpool2d(*F.max_pool2d(a, 2, return_indices=True), 2))(a)
    for k in range(3):
        same(out[k], F.max_unpool2d(*F.max_pool2d(a[k], 2, return_indices=True), 2).numpy())


# As PyTorch ----------------------------------------------------------------------------------------------------------

Case = Callable[[Any], Any]


def namespace(library: Any, functional: Any, array: Callable[[Any], Any]) -> SimpleNamespace:
    return SimpleNamespace(t=library, vmap=functional.vmap, array=array, a=array(X[0]), b=array(X[1]), w=array(X[0, 0]))


CASES: dict[str, Case] = {
    "in_dims None": lambda n: n.vmap(lambda a: a, in_dims=None)(n.a),
    "in_dims list": lambda n: n.vmap(lambda a: a, in_dims=[0])(n.a),
    "in_dims text": lambda n: n.vmap(lambda a: a, in_dims="a")(n.a),
    "in_dims too long": lambda n: n.vmap(lambda a: a, in_dims=(0, 0))(n.a),
    "in_dims all None": lambda n: n.vmap(lambda a: a, in_dims=(None,))(n.a),
    "in_dims float": lambda n: n.vmap(lambda a: a, in_dims=(1.0,))(n.a),
    "in_dims out of range": lambda n: n.vmap(lambda a: a, in_dims=2)(n.a),
    "in_dims nested wrongly": lambda n: n.vmap(lambda a: a[0], in_dims=((0, 0),))([n.a]),
    "no dimensions": lambda n: n.vmap(lambda a: a)(n.a[0, 0]),
    "no arguments": lambda n: n.vmap(lambda: n.a)(),
    "a number": lambda n: n.vmap(lambda a, k: a * k)(n.a, 2.0),
    "a number, shared": lambda n: n.vmap(lambda a, k: a * k, in_dims=(0, None))(n.a, 2.0),
    "sizes": lambda n: n.vmap(lambda a, w: a)(n.a, n.w),
    "keyword": lambda n: n.vmap(lambda a, k=None: a + k)(n.a, k=n.b),
    "gives a number": lambda n: n.vmap(lambda a: 1.0)(n.a),
    "gives None": lambda n: n.vmap(lambda a: None)(n.a),
    "out_dims None": lambda n: n.vmap(lambda a: n.w, out_dims=None)(n.a),
    "out_dims None, differs": lambda n: n.vmap(lambda a: a, out_dims=None)(n.a),
    "out_dims out of range": lambda n: n.vmap(lambda a: a, out_dims=2)(n.a),
    "out_dims text": lambda n: n.vmap(lambda a: a, out_dims="a")(n.a),
    "out_dims of one": lambda n: n.vmap(lambda a: a, out_dims=(1,))(n.a),
    "out_dims too short": lambda n: n.vmap(lambda a: (a, a), out_dims=(1,))(n.a),
    "out_dims negative": lambda n: n.vmap(lambda a: a, out_dims=-1)(n.a),
    "randomness": lambda n: n.vmap(lambda a: a, randomness="x")(n.a),
    "chunk_size": lambda n: n.vmap(lambda a: a, chunk_size=0)(n.a),
    "chunks": lambda n: n.vmap(lambda a: a.sum(), chunk_size=2)(n.a),
    "random": lambda n: n.vmap(lambda a: n.t.rand(2))(n.a),
    "item": lambda n: n.vmap(lambda a: a.sum().item())(n.a),
    "bool": lambda n: n.vmap(lambda a: a if a.sum() > 0 else -a)(n.a),
    "nonzero": lambda n: n.vmap(lambda a: a.nonzero())(n.a),
    "mask": lambda n: n.vmap(lambda a: a[a > 0])(n.a),
    "shared mask": lambda n: n.vmap(lambda a: a[n.w > 0])(n.a),
    "masked_select": lambda n: n.vmap(lambda a: a.masked_select(a > 0))(n.a),
    "masked_fill": lambda n: n.vmap(lambda a: a.masked_fill(a > 0, 7.0))(n.a),
    "where": lambda n: n.vmap(lambda a, b: n.t.where(a > b, a, b))(n.a, n.b),
    "argsort": lambda n: n.vmap(lambda a: a.argsort())(n.a),
    "index": lambda n: n.vmap(lambda a, i: a[i])(n.a, n.array(np.array([[0, 1], [3, 3], [2, -1]]))),
    "index of a number": lambda n: n.vmap(lambda a, i: a[i])(n.a, n.array(np.array([0, 3, -1]))),
    "one_hot": lambda n: n.vmap(lambda i: n.t.nn.functional.one_hot(i, 4))(n.array(np.array([0, 3, 1]))),
    "one_hot of unknown": lambda n: n.vmap(lambda i: n.t.nn.functional.one_hot(i))(n.array(np.array([0, 3, 1]))),
    "bincount": lambda n: n.vmap(lambda i: n.t.bincount(i, minlength=4))(n.array(np.array([[0, 3], [1, 1]]))),
    "searchsorted": lambda n: n.vmap(lambda a, b: n.t.searchsorted(a.sort()[0], b))(n.a, n.b),
    "bucketize": lambda n: n.vmap(lambda a: n.t.bucketize(a, n.w.sort()[0]))(n.a),
    "isin": lambda n: n.vmap(lambda a: n.t.isin(a, n.b))(n.a),
    "allclose": lambda n: n.vmap(lambda a: n.t.allclose(a, a))(n.a),
    "as_strided": lambda n: n.vmap(lambda a: a.as_strided((2, 2), (1, 2), 1))(n.a),
    "view": lambda n: n.vmap(lambda a: a.view(-1), in_dims=2)(n.array(X)),
    "view that copies": lambda n: n.vmap(lambda a: a.t().view(-1))(n.array(X)),
    "shared in place": lambda n: n.vmap(lambda a: n.w.clone().add_(a))(n.a),
    "shared assigned": lambda n: n.vmap(lambda a: n.w.clone().__setitem__(0, a[0]))(n.a),
    "own in place": lambda n: n.vmap(lambda a: a.clone().add_(n.w))(n.a),
    "zeros_like": lambda n: n.vmap(lambda a: n.t.zeros_like(a).copy_(a))(n.a),
    "backward": lambda n: n.vmap(lambda a: a.sum().backward())(n.a.clone().requires_grad_()),
    "singular": lambda n: n.vmap(n.t.linalg.inv)(n.array(np.zeros((3, 2, 2), np.float32))),
    "half": lambda n: n.vmap(lambda a: (a.half() @ n.w.half()).softmax(0))(n.array(X)),
    "integers": lambda n: n.vmap(lambda a: (a * 10).int() // 3 + 0.5)(n.a),
    "linear": lambda n: n.vmap(n.t.nn.functional.linear)(n.a, n.array(X[:, :, :].repeat(2, 0)[:3]), n.b[:, :3]),
    "conv2d": lambda n: n.vmap(n.t.nn.functional.conv2d)(
        n.array(np.ones((2, 1, 3, 5, 5), np.float32)), n.array(np.ones((2, 4, 3, 2, 2), np.float32))
    ),
}


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

    theirs = outcome(namespace(torch, torch.func, torch.from_numpy))
    ours = outcome(namespace(dg, dg.func, lambda array: Tensor(array.copy())))
    if isinstance(theirs, Exception):
        kind = type(theirs).__mro__[1] if type(theirs).__name__.startswith("_") else type(theirs)
        assert isinstance(ours, kind), ours
    else:
        assert isinstance(ours, Tensor), ours
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
        assert ours.requires_grad == theirs.requires_grad
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-3, atol=1e-6)
        assert ours.shape == tuple(theirs.shape)
