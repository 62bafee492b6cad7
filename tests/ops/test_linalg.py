"""Linear algebra: what the rows of the op table cannot say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor, gradcheck, gradgradcheck
from distgrad.ops import contraction

rng = np.random.default_rng(5)


def draw(*shape: int, grad: bool = True) -> Tensor:
    return dg.tensor(rng.standard_normal(shape), requires_grad=grad)


def regular(*shape: int) -> Tensor:
    A = rng.standard_normal(shape) + 2 * shape[-1] * np.eye(*shape[-2:])
    return dg.tensor(A, requires_grad=True)


def nodes(output: Tensor) -> list[str]:
    """The names of the operations behind ``output``, leaves left out."""
    found, stack = [], [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node.next_functions:
            found.append(node.name())
            stack += [function for function, _ in node.next_functions]
    return found


def close(actual: Any, expected: Any, tolerance: float = 1e-10) -> None:
    actual, expected = (x.detach().numpy() if isinstance(x, Tensor) else x for x in (actual, expected))
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# One matrix, and memory of any layout --------------------------------------------------------------------------------

OF_ONE: dict[str, Callable[..., Any]] = {
    "inv": dg.linalg.inv,
    "det": dg.linalg.det,
    "slogdet": dg.linalg.slogdet,
    "logdet": dg.logdet,
    "cholesky": lambda A: dg.linalg.cholesky(A @ A.mT),
    "qr": dg.linalg.qr,
    "svd": lambda A: dg.linalg.svd(A)[1:2],
    "polar": lambda A: (lambda U, S, Vh: U @ Vh)(*dg.linalg.svd(A)),
    "svdvals": dg.linalg.svdvals,
    "eigvalsh": dg.linalg.eigvalsh,
    "eigenprojector": lambda A: (lambda V: V[..., :, :1] @ V[..., :, :1].mT)(dg.linalg.eigh(A)[1]),
    "pinv": dg.linalg.pinv,
    "lu": lambda A: dg.linalg.lu(A)[1:],
    "lu_factor": lambda A: dg.linalg.lu_factor(A)[:1],
    "matrix_exp": dg.linalg.matrix_exp,
    "matrix_power": lambda A: dg.linalg.matrix_power(A, -3),
    "cond": dg.linalg.cond,
    "cond by the inverse": lambda A: dg.linalg.cond(A, "fro"),
    "solve": lambda A: dg.linalg.solve(A, A.mT + 1),
    "lstsq": lambda A: dg.linalg.lstsq(A, A.mT + 1).solution,
    "lu_solve": lambda A: dg.linalg.lu_solve(*dg.linalg.lu_factor(A), A.mT + 1),
    "tensorinv": lambda A: dg.linalg.tensorinv(A.reshape(*A.shape[:-2], 3, 3), ind=1) if A.ndim == 2 else None,
}


def values_and_gradient(function: Callable[..., Any], A: Tensor) -> tuple[list[Any], Any]:
    outputs = function(A)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    outputs = [out for out in outputs if out.requires_grad]
    total = sum((out * (i + 1)).sin().sum() for i, out in enumerate(outputs))
    (gradient,) = dg.autograd.grad(total, A)
    return [out.detach().numpy() for out in outputs], gradient.numpy()


@pytest.mark.parametrize("name", [name for name in OF_ONE if name != "tensorinv"])
def test_one_matrix_is_a_batch_of_one(name: str) -> None:
    A = regular(3, 3)
    batch = dg.tensor(np.stack([A.detach().numpy()] * 2), requires_grad=True)
    alone, gradient = values_and_gradient(OF_ONE[name], A)
    together, gradients = values_and_gradient(OF_ONE[name], batch)
    for one, both in zip(alone, together, strict=True):
        close(both, np.stack([one, one]))
    close(gradients, np.stack([gradient, gradient]))


@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed"])
@pytest.mark.parametrize("name", OF_ONE)
def test_the_layout_of_a_matrix_does_not_matter(name: str, layout: str) -> None:
    A = regular(3, 3).detach().numpy()
    wide = np.zeros((6, 6))
    wide[::2, ::2] = A
    other = {"transposed": A.T.copy().T, "strided": wide[::2, ::2], "reversed": A[::-1, ::-1].copy()[::-1, ::-1]}[
        layout
    ]
    expected, gradient = values_and_gradient(OF_ONE[name], dg.tensor(A, requires_grad=True))
    same = Tensor(other)
    same.requires_grad = True
    actual, same_gradient = values_and_gradient(OF_ONE[name], same)
    for a, b in zip(actual, expected, strict=True):
        close(a, b, 1e-12)
    close(same_gradient, gradient, 1e-11)


# Products ------------------------------------------------------------------------------------------------------------


def test_the_operator() -> None:
    a, b = draw(2, 3), draw(3, 2)
    close(a @ b, a.detach().numpy() @ b.detach().numpy())
    close(a @ b, a.matmul(b))
    with pytest.raises(TypeError):
        a @ 3
    with pytest.raises(TypeError):
        3 @ a


def test_a_linear_layer_is_one_operation() -> None:
    x, w, b = draw(2, 4, 3), draw(5, 3), draw(5)
    assert nodes(dg.nn.functional.linear(x, w, b)) == ["LinearBackward0"]
    assert nodes(dg.addmm(draw(2, 5), draw(2, 3), draw(3, 5), beta=2, alpha=3)) == ["AddmmBackward0"]
    assert nodes(dg.einsum("bij,bkj->bik", draw(2, 2, 3), draw(2, 4, 3))) == ["ContractBackward0"]


def test_the_gradient_of_a_bias_is_exact_for_any_number_of_rows() -> None:
    for rows in (3, 1000, 20_000):
        x = dg.zeros(rows, 1)
        bias = dg.zeros(2, requires_grad=True)
        g = (rng.standard_normal((rows, 2)) + 1).astype(np.float32)
        dg.nn.functional.linear(x, dg.zeros(2, 1), bias).backward(dg.tensor(g))
        np.testing.assert_allclose(bias.grad.numpy(), g.astype(float).sum(axis=0), rtol=1e-6)


def test_what_is_multiplied_by_zero_does_not_count() -> None:
    nan, ones = dg.full((2, 2), math.nan), dg.ones(2, 2)
    assert dg.addmm(nan, ones, ones, beta=0).tolist() == [[2, 2], [2, 2]]
    assert dg.addmm(ones, nan, ones, alpha=0).tolist() == [[1, 1], [1, 1]]
    assert dg.addmv(nan[0], ones, ones[0], beta=0).tolist() == [2, 2]
    assert dg.addr(nan, ones[0], ones[0], beta=0).tolist() == [[1, 1], [1, 1]]
    assert dg.baddbmm(nan, ones[None], ones[None], beta=0).tolist() == [[[2, 2], [2, 2]]]
    assert dg.addbmm(nan, ones[None], ones[None], beta=0).tolist() == [[2, 2], [2, 2]]
    assert dg.addmv(ones[0], nan, ones[0], alpha=0).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("addmm", ((2, 3), (3, 2))),
        ("addmv", ((2, 3), (3,))),
        ("addr", ((2,), (2,))),
        ("addbmm", ((4, 2, 3), (4, 3, 2))),
        ("baddbmm", ((1, 2, 3), (1, 3, 2))),
    ],
)
def test_in_place(name: str, shapes: Any) -> None:
    first, second = (draw(*shape) for shape in shapes)
    start = draw(*{"addmv": (2,), "baddbmm": (1, 2, 2)}.get(name, (2, 2)))
    expected = getattr(dg, name)(start, first, second, beta=0.5, alpha=2)
    tensor = start.clone()
    assert getattr(tensor, f"{name}_")(first, second, beta=0.5, alpha=2) is tensor
    close(tensor, expected)
    for a, b in zip(
        dg.autograd.grad(tensor.sum(), [start, first]), dg.autograd.grad(expected.sum(), [start, first]), strict=True
    ):
        close(a, b)


def test_integers_and_numbers_that_are_not() -> None:
    a = dg.tensor([[1, 2], [3, 4]])
    assert dg.addmm(a, a, a, alpha=2.9, beta=1.9).tolist() == (a + 2 * (a @ a)).tolist()  # as PyTorch cuts them off
    assert (a @ a).dtype == a.dtype
    assert dg.trace(a.to(dg.int32)).dtype == dg.int64
    assert dg.trace(a).item() == 5


def test_half_precision() -> None:
    a = dg.ones(1, 4096, dtype=dg.float16)
    assert (a @ a.T).item() == 4096 and (a @ a.T).dtype == dg.float16
    assert dg.dot(a[0], a[0]).item() == 4096
    assert dg.einsum("ij,kj->ik", a, a).dtype == dg.float16
    close(dg.linalg.matrix_exp(dg.eye(2, dtype=dg.float16)), np.eye(2) * math.e, 1e-3)


# Einstein summation --------------------------------------------------------------------------------------------------


def test_the_order_of_contraction_is_a_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    product = contraction.product

    def measured(a: Any, b: Any) -> Any:
        out = product(a, b)
        sizes.append(out.size)
        return out

    monkeypatch.setattr(contraction, "product", measured)
    a, b, v = draw(30, 30), draw(30, 30), draw(30)
    out = dg.einsum("ij,jk,k->i", a, b, v)  # from the left this is a product of matrices
    assert max(sizes) == 30
    close(out, a.detach().numpy() @ (b.detach().numpy() @ v.detach().numpy()))


def test_derivatives_of_any_order() -> None:
    a, b = draw(2, 3), draw(3, 2)

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        out = dg.einsum("ij,jk,kl->il", x, y, x).sin().sum()
        (first,) = dg.autograd.grad(out, x, create_graph=True)
        return first

    assert gradcheck(gradient, [a, b])
    assert gradgradcheck(gradient, [a, b])


def test_more_letters_than_the_alphabet_has() -> None:
    x = draw(*[1] * 10, grad=False)
    terms = [list(range(10 * i, 10 * i + 10)) for i in range(5)]
    out = dg.einsum(*(part for term in terms for part in (x, term)), [0, 10, 20, 30, 40, 49])
    close(out.reshape(1), (x**5).reshape(1))
    wide = dg.einsum("...a,...b,...c->...abc", draw(2, 3, 2, 1, 2), draw(3, 2, 1, 2), draw(2))
    assert wide.shape == (2, 3, 2, 1, 2, 2, 2)


def test_an_output_without_the_ellipsis_sums_over_it() -> None:
    x = draw(2, 4, 3)
    close(dg.einsum("...i->i", x), x.sum((0, 1)))


# Factorizations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (3, 3), (2, 4, 3), (0, 3), (3, 0)], ids=str)
def test_full_singular_vectors_are_orthogonal(shape: tuple[int, ...]) -> None:
    A = draw(*shape, grad=False)
    U, S, Vh = dg.linalg.svd(A)
    rows, columns = shape[-2:]
    k = min(rows, columns)
    assert U.shape[-2:] == (rows, rows) and Vh.shape[-2:] == (columns, columns)
    close(U.mT @ U, np.broadcast_to(np.eye(rows), U.shape))
    close(Vh @ Vh.mT, np.broadcast_to(np.eye(columns), Vh.shape))
    close((U[..., :k] * S[..., None, :]) @ Vh[..., :k, :], A)
    reduced = dg.linalg.svd(A, full_matrices=False)
    assert reduced.U.shape[-2:] == (rows, k) and reduced.Vh.shape[-2:] == (k, columns)
    old = dg.svd(A)
    close(old.V, reduced.Vh.mT)
    assert dg.svd(A, some=False).V.shape[-2:] == (columns, columns)
    without = dg.svd(A, compute_uv=False)
    close(without.S, S)
    assert not without.U.numpy().any() and without.U.shape == U.shape and without.V.shape[-1] == columns


def test_qr_says_why_it_has_no_derivative() -> None:
    A = regular(3, 2)
    for mode, message in (("r", "depends on Q, which is not computed when mode='r'"), ("complete", "nrows > ncols")):
        with pytest.raises(RuntimeError, match=message):
            dg.linalg.qr(A, mode).R.sum().backward()
    Q, R = dg.linalg.qr(A, "complete")
    close(Q @ R, A)
    close(Q.mT @ Q, np.eye(3))
    assert dg.linalg.qr(A, "r").Q.shape == (0,)


def test_equal_singular_values_raise_nothing() -> None:
    A = dg.eye(3, dtype=dg.float64, requires_grad=True)
    (gradient,) = dg.autograd.grad(dg.linalg.svdvals(A).sum(), A)
    close(gradient, np.eye(3))  # of the nuclear norm, which is smooth here
    U, _, _ = dg.linalg.svd(A)
    (gradient,) = dg.autograd.grad((U * draw(3, 3, grad=False)).sum(), A)
    assert not np.isfinite(gradient.numpy()).all()
    (gradient,) = dg.autograd.grad(dg.linalg.eigvalsh(A).sum(), A)
    close(gradient, np.eye(3))


def test_what_is_not_a_number_is_no_error_for_eigenvalues() -> None:
    values, vectors = dg.linalg.eigh(dg.full((2, 2), math.nan))
    assert np.isnan(values.numpy()).all() and np.isnan(vectors.numpy()).all()


def test_info_instead_of_an_error() -> None:
    singular = dg.stack([dg.eye(2), dg.ones(2, 2), dg.zeros(2, 2)])
    inverse, info = dg.linalg.inv_ex(singular)
    assert info.tolist() == [0, 2, 1] and info.dtype == dg.int32
    assert inverse[0].tolist() == [[1, 0], [0, 1]] and np.isinf(inverse[1:].numpy()).all()
    solution, info = dg.linalg.solve_ex(singular, dg.ones(2))
    assert info.tolist() == [0, 2, 1]
    assert solution[0].tolist() == [1, 1] and np.isnan(solution[1:].numpy()).all()
    factor, info = dg.linalg.cholesky_ex(dg.stack([dg.eye(2), dg.tensor([[1.0, 2], [2, 1]]), -dg.eye(2)]))
    assert info.tolist() == [0, 2, 1]
    assert factor[0].tolist() == [[1, 0], [0, 1]] and np.isnan(factor[1:].numpy()).all()
    assert dg.linalg.lu_factor_ex(singular).info.tolist() == [0, 2, 1]
    assert dg.lu(singular, get_infos=True)[2].tolist() == [0, 2, 1]
    assert dg.linalg.inv_ex(dg.eye(2)).info.shape == ()


def test_the_permutation_of_lu() -> None:
    A = draw(2, 4, 3, grad=False)
    P, L, U = dg.linalg.lu(A)
    close(P @ L @ U, A)
    LU, pivots = dg.linalg.lu_factor(A)
    for a, b in zip(dg.lu_unpack(LU, pivots), (P, L, U), strict=True):
        close(a, b)
    P, L, U = dg.lu_unpack(LU, pivots, unpack_data=False)
    assert P.shape == (2, 4, 4) and L.shape == U.shape == (0,)
    assert dg.lu_unpack(LU, pivots, unpack_pivots=False).P.shape == (0,)
    assert not dg.linalg.lu(regular(3, 3)).P.requires_grad


def test_a_large_lu_has_a_right_gradient() -> None:
    A = regular(40, 40)
    B = draw(40, 2, grad=False)
    (expected,) = dg.autograd.grad((dg.linalg.solve(A, B) ** 2).sum(), A)
    (gradient,) = dg.autograd.grad((dg.linalg.lu_solve(*dg.linalg.lu_factor(A), B) ** 2).sum(), A)
    close(gradient, expected, 1e-9)


# Determinants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_determinants_of_singular_matrices_have_gradients(rank: int) -> None:
    A = dg.tensor(rng.standard_normal((3, rank)) @ rng.standard_normal((rank, 3)), requires_grad=True)
    assert gradcheck(dg.linalg.det, A)
    assert gradgradcheck(dg.linalg.det, A)


def test_the_gradient_of_a_determinant_is_made_of_minors() -> None:
    A = dg.tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    (gradient,) = dg.autograd.grad(dg.det(A), A)
    close(gradient, np.array([[4.0, -2.0], [-2.0, 1.0]]), 1e-6)
    batch = dg.tensor([[[1.0, 2.0], [2.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]]], requires_grad=True)
    (gradient,) = dg.autograd.grad(dg.det(batch).sum(), batch)
    close(gradient, np.array([[[4.0, -2.0], [-2.0, 1.0]], [[4.0, -3.0], [-2.0, 1.0]]]), 1e-6)


def test_third_derivatives_of_a_determinant() -> None:
    A = regular(3, 3)

    def gradient(x: Tensor) -> Tensor:
        return dg.autograd.grad(dg.det(x), x, create_graph=True)[0]

    assert gradgradcheck(gradient, A)


def test_logarithms_of_determinants() -> None:
    A = dg.tensor([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [2.0, 4.0]], [[2.0, 0.0], [0.0, 3.0]]], requires_grad=True)
    sign, logarithm = dg.slogdet(A)
    assert sign.tolist() == [-1, 0, 1]
    close(logarithm, np.log(np.array([2.0, 1e-300, 6.0])) - np.array([0, math.inf, 0]), 1e-6)
    values = dg.logdet(A)
    assert math.isnan(values[0].item()) and values[1].item() == -math.inf
    (gradient,) = dg.autograd.grad(logarithm.sum(), A)
    assert np.isinf(gradient.numpy()[1]).all()
    close(gradient[2], np.diag([1 / 2, 1 / 3]), 1e-6)
    assert dg.det(dg.zeros(0, 0)).item() == 1
    assert dg.det(dg.full((2, 2), math.nan, requires_grad=True)).isnan().item()


# Solvers -------------------------------------------------------------------------------------------------------------


def test_least_squares_says_what_its_driver_is_for() -> None:
    A, B = regular(4, 2), draw(4, 3, grad=False)
    values = np.linalg.svd(A.detach().numpy(), compute_uv=False)
    residuals = ((A @ dg.linalg.lstsq(A, B).solution - B) ** 2).sum(0).detach().numpy()
    for driver, has_residuals, has_rank, has_values in (
        (None, False, True, False),
        ("gelsy", False, True, False),
        ("gels", True, False, False),
        ("gelsd", True, True, True),
        ("gelss", True, True, True),
    ):
        result = dg.linalg.lstsq(A, B, driver=driver)
        close(result.residuals, residuals if has_residuals else np.zeros(0))
        assert result.rank.tolist() == (2 if has_rank else [])
        close(result.singular_values, values if has_values else np.zeros(0))
        assert not result.singular_values.requires_grad


def test_least_squares_of_low_rank_is_the_shortest_solution() -> None:
    A = dg.tensor(rng.standard_normal((2, 4, 1)) @ rng.standard_normal((2, 1, 3)))
    B = draw(2, 4, 2, grad=False)
    result = dg.linalg.lstsq(A, B, driver="gelsd")
    assert result.rank.tolist() == [1, 1] and result.residuals.shape == (0,)
    for i in range(2):
        close(result.solution[i], np.linalg.lstsq(A.numpy()[i], B.numpy()[i], rcond=None)[0])
    # with a tolerance above the smaller singular value there is only the larger one
    thin = dg.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert dg.linalg.lstsq(thin, dg.ones(3), rcond=0.5).solution.tolist() == pytest.approx([1 / 3, 0])


def test_tolerances_of_the_pseudoinverse() -> None:
    A = dg.tensor(np.diag([4.0, 1.0]))
    assert dg.linalg.pinv(A, 0.5).tolist() == [[0.25, 0], [0, 0]]
    assert dg.linalg.pinv(A, atol=2.0).tolist() == [[0.25, 0], [0, 0]]
    assert dg.linalg.pinv(A, atol=0.5).tolist() == [[0.25, 0], [0, 1]]
    both = dg.linalg.pinv(dg.stack([A, A]), rtol=dg.tensor([0.5, 0.1]))
    assert both.tolist() == [[[0.25, 0], [0, 0]], [[0.25, 0], [0, 1]]]
    negative = dg.tensor(np.diag([-4.0, 1.0]))
    close(dg.linalg.pinv(negative, hermitian=True), np.diag([-0.25, 1.0]))


def test_a_zero_on_the_diagonal_of_a_triangle() -> None:
    X = dg.linalg.solve_triangular(dg.tensor([[1.0, 1.0], [0.0, 0.0]]), dg.ones(2, 1), upper=True)
    assert X[1].item() == math.inf and X[0].item() == -math.inf


def test_large_triangles_have_right_gradients() -> None:
    A, B = regular(150, 150), draw(150, 2, grad=False)
    (gradient,) = dg.autograd.grad((dg.linalg.solve_triangular(A, B, upper=False) ** 2).sum(), A)
    (expected,) = dg.autograd.grad((dg.linalg.solve(A.tril(), B) ** 2).sum(), A)
    close(gradient, expected, 1e-9)


# Functions and norms -------------------------------------------------------------------------------------------------


def test_exponentials_of_large_matrices() -> None:
    angle = 50.0
    turn = dg.tensor([[0.0, -angle], [angle, 0.0]], dtype=dg.float64)
    c, s = math.cos(angle), math.sin(angle)
    close(dg.linalg.matrix_exp(turn), np.array([[c, -s], [s, c]]), 1e-12)
    batch = dg.stack([turn, turn * 0, turn / angle * 1e-9])  # each is scaled on its own
    close(dg.linalg.matrix_exp(batch), np.stack([[[c, -s], [s, c]], np.eye(2), [[1, -1e-9], [1e-9, 1]]]), 1e-12)
    assert dg.linalg.matrix_exp(dg.full((2, 2), math.nan)).isnan().all().item()


def test_the_scale_of_the_gradient_costs_no_accuracy() -> None:
    A = draw(3, 3)
    E = dg.linalg.matrix_exp(A)
    g = draw(3, 3, grad=False)
    (small,) = dg.autograd.grad(E, A, g * 1e-200, retain_graph=True)
    (large,) = dg.autograd.grad(E, A, g * 1e200, retain_graph=True)
    (plain,) = dg.autograd.grad(E, A, g)
    close(small.numpy() * 1e200, plain)
    close(large.numpy() * 1e-200, plain)


@pytest.mark.parametrize("ord", [1, 2, 3, 0.5, math.inf, -math.inf, -1, 0])
def test_the_gradient_of_the_norm_of_nothing_is_nothing(ord: float) -> None:
    x = dg.zeros(3, dtype=dg.float64, requires_grad=True)
    (gradient,) = dg.autograd.grad(dg.linalg.vector_norm(x, ord), x, create_graph=True)
    assert gradient.tolist() == [0, 0, 0]


def test_equal_extremes_share_the_gradient() -> None:
    x = dg.tensor([-2.0, 2.0, 1.0], requires_grad=True)
    assert dg.autograd.grad(dg.linalg.vector_norm(x, math.inf), x)[0].tolist() == [-0.5, 0.5, 0]


def test_norms_and_conditions_of_nothing() -> None:
    for ord in ("fro", "nuc", math.inf, 1, 2):
        assert dg.linalg.matrix_norm(dg.zeros(0, 0), ord).item() == 0
        assert dg.linalg.matrix_norm(dg.zeros(0, 3), ord).item() == 0
        assert dg.linalg.matrix_norm(dg.zeros(3, 0), ord, keepdim=True).tolist() == [[0]]
    with pytest.raises(IndexError):
        dg.linalg.matrix_norm(dg.zeros(0, 3), -math.inf)
    for p in (None, "fro", 1, -2):
        assert dg.linalg.cond(dg.zeros(2, 0, 0), p).tolist() == [0, 0]
    assert dg.linalg.cond(dg.zeros(0, 3)).item() == 0


@pytest.mark.parametrize("p", [None, "fro", "nuc", 1, -1, math.inf, -math.inf])
def test_singular_matrices_have_an_infinite_condition(p: Any) -> None:
    assert dg.linalg.cond(dg.stack([dg.eye(2), dg.zeros(2, 2)]), p).isfinite().tolist() == [True, False] or p is None
    assert dg.linalg.cond(dg.diag(dg.tensor([1.0, 0.0])), p).item() == math.inf


def test_half_precision_norms_do_not_overflow() -> None:
    assert dg.linalg.vector_norm(dg.full((2,), 300.0, dtype=dg.float16)).item() == pytest.approx(424.25)


def test_ranks_have_no_gradient() -> None:
    rank = dg.linalg.matrix_rank(regular(3, 3))
    assert rank.item() == 3 and not rank.requires_grad and rank.dtype == dg.int64


# The surface ---------------------------------------------------------------------------------------------------------

METHODS = {
    "bmm": (lambda: draw(2, 2, 3), lambda: (draw(2, 3, 1),)),
    "cholesky": (lambda: dg.eye(2), tuple),
    "cholesky_inverse": (lambda: dg.eye(2), tuple),
    "cholesky_solve": (lambda: dg.ones(2, 1), lambda: (dg.eye(2) * 2,)),
    "cross": (lambda: draw(3), lambda: (draw(3),)),
    "det": (lambda: regular(2, 2), tuple),
    "dist": (lambda: draw(3), lambda: (draw(3), 1)),
    "inner": (lambda: draw(3), lambda: (draw(3),)),
    "inverse": (lambda: regular(2, 2), tuple),
    "kron": (lambda: draw(2, 2), lambda: (draw(1, 2),)),
    "logdet": (lambda: regular(2, 2), tuple),
    "matrix_exp": (lambda: draw(2, 2), tuple),
    "matrix_power": (lambda: draw(2, 2), lambda: (2,)),
    "norm": (lambda: draw(2, 2), lambda: (1, 0)),
    "outer": (lambda: draw(2), lambda: (draw(3),)),
    "pinverse": (lambda: draw(3, 2), tuple),
    "qr": (lambda: regular(2, 2), tuple),
    "slogdet": (lambda: regular(2, 2), tuple),
    "svd": (lambda: draw(2, 2), tuple),
    "lu": (lambda: regular(2, 2), tuple),
    "trace": (lambda: draw(2, 2), tuple),
    "vdot": (lambda: draw(3), lambda: (draw(3),)),
    "mv": (lambda: draw(2, 3), lambda: (draw(3),)),
    "ger": (lambda: draw(2), lambda: (draw(3),)),
    "adjoint": (lambda: draw(2, 3), tuple),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_the_function(name: str) -> None:
    make, arguments = METHODS[name]
    x, others = make(), arguments()
    function, method = getattr(dg, name)(x, *others), getattr(x, name)(*others)
    for a, b in zip(
        [function] if isinstance(function, Tensor) else function,
        [method] if isinstance(method, Tensor) else method,
        strict=True,
    ):
        close(a, b)


def test_the_error_is_a_runtime_error() -> None:
    assert issubclass(dg.linalg.LinAlgError, RuntimeError)
    with pytest.raises(RuntimeError, match="singular"):
        dg.linalg.inv(dg.zeros(2, 2))


def test_results_have_names() -> None:
    assert repr(dg.linalg.slogdet(dg.eye(1))).startswith("torch.return_types.linalg_slogdet(\nsign=tensor(1.)")
    Q, R = dg.linalg.qr(dg.eye(2))
    assert dg.linalg.qr(dg.eye(2)).Q.tolist() == Q.tolist() and R.shape == (2, 2)


@pytest.mark.parity
def test_every_name_of_the_room_is_one_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    assert [name for name in dg.linalg.__all__ if not hasattr(torch.linalg, name)] == []
    public = [name for name, value in vars(torch.linalg).items() if callable(value) and not name.startswith("_")]
    missing = {name for name in public if not hasattr(dg.linalg, name)}
    # complex results, and factorizations for which NumPy has nothing
    assert missing == {"eig", "eigvals", "householder_product", "ldl_factor", "ldl_factor_ex", "ldl_solve"}
