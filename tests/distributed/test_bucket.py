"""Which parameters share a bucket: PyTorch's rule, in reverse order of registration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distgrad.autograd import Tensor
from distgrad.distributed.bucket import FIRST_BUCKET_BYTES, MEGABYTE, assign_buckets, make_buckets

KILO = 1 << 10


@pytest.mark.parametrize(
    ("sizes", "cap", "expected"),
    [
        ([], 100, []),
        ([(4, "f")], 100, [[0]]),
        ([(4, "f")] * 3, 100, [[2, 1, 0]]),
        # The parameter that fills a bucket closes it.
        ([(4, "f")] * 5, 8, [[4, 3], [2, 1], [0]]),
        ([(4, "f")] * 5, 9, [[4, 3, 2], [1, 0]]),
        ([(100, "f"), (4, "f"), (100, "f")], 8, [[2], [1, 0]]),
        # Dtypes do not mix; the bucket whose last parameter comes first in backward goes first.
        ([(4, "f"), (8, "d"), (4, "f"), (8, "d")], 100, [[3, 1], [2, 0]]),
        ([(8, "d"), (4, "f"), (4, "f"), (8, "d")], 100, [[2, 1], [3, 0]]),
        ([(8, "d"), (4, "f"), (4, "f"), (8, "d")], 8, [[3], [2, 1], [0]]),
    ],
)
def test_assignment(sizes: list[tuple[int, str]], cap: int, expected: list[list[int]]) -> None:
    assert assign_buckets(sizes, cap) == expected


def test_the_first_bucket_is_small() -> None:
    sizes = [(600 * KILO, "f")] * 8
    assert assign_buckets(sizes, 2 * MEGABYTE) == [[7, 6], [5, 4, 3, 2], [1, 0]]
    assert FIRST_BUCKET_BYTES == 1 << 20


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(["f", "d"])), max_size=40),
    st.integers(1, 8000),
)
def test_every_parameter_is_in_one_bucket_of_its_dtype(sizes: list[tuple[int, str]], cap: int) -> None:
    buckets = assign_buckets(sizes, cap)
    assert sorted(i for bucket in buckets for i in bucket) == list(range(len(sizes)))
    for bucket in buckets:
        assert bucket and bucket == sorted(bucket, reverse=True)
        assert len({sizes[i][1] for i in bucket}) == 1
        assert sum(sizes[i][0] for i in bucket[:-1]) < cap  # full only with its last parameter


@pytest.mark.parity
def test_same_rule_as_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available():
        pytest.skip("this PyTorch is built without distributed")
    generator = np.random.default_rng(5)
    for cap in (KILO, 100 * KILO, 25 * MEGABYTE):
        lengths = generator.integers(1, 300_000, 30)
        # In reverse order, since PyTorch assigns in the order in which it is given the tensors.
        tensors = [torch.empty(int(n), dtype=torch.float32) for n in lengths]
        theirs, _ = distributed._compute_bucket_assignment_by_size(tensors[::-1], [min(MEGABYTE, cap), cap])
        ours = assign_buckets([(int(n) * 4, "float32") for n in lengths], cap)
        assert ours == [[len(lengths) - 1 - i for i in bucket] for bucket in theirs]


def test_views_share_the_flat_memory() -> None:
    parameters = [Tensor(np.zeros(shape, dtype=np.float32), requires_grad=True) for shape in [(2, 3), (), (0, 4), (5,)]]
    (bucket,) = make_buckets(parameters, ["a", "b", "c", "d"], 25)
    assert bucket.positions == (3, 2, 1, 0) and bucket.flat.shape == (12,) and bucket.flat.dtype == np.float32
    for number, view in enumerate(bucket.views):
        view[...] = number
    assert bucket.flat.tolist() == [0] * 5 + [2] + [3] * 6
    assert [view.shape for view in bucket.gradients()] == [(5,), (0, 4), (), (2, 3)]
    assert bucket.buffer() is bucket.flat and bucket.parameters() == parameters[::-1]
    assert (bucket.names, bucket.label) == (("d", "c", "b", "a"), "bucket 0, d ... a")
    assert bucket.index() == 0 and bucket.is_last()


def test_a_known_order_is_that_of_the_memory() -> None:
    parameters = [Tensor(np.zeros(n), requires_grad=True) for n in (3, 1, 2)]
    buckets = make_buckets(parameters, ["a", "b", "c"], 16 / MEGABYTE, order=[1, 2, 0])
    assert [bucket.names for bucket in buckets] == [("b", "c"), ("a",)]
    assert [(bucket.index(), bucket.is_last()) for bucket in buckets] == [(0, False), (1, True)]
