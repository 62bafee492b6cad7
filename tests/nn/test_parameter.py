from __future__ import annotations

import copy

import numpy as np
import pytest

import distgrad
from distgrad import nn


def test_it_requires_a_gradient_and_shares_memory() -> None:
    array = np.arange(3.0)
    tensor = distgrad.from_numpy(array)
    for data in (array, tensor):
        parameter = nn.Parameter(data)
        assert parameter.requires_grad and parameter.is_leaf and parameter.dtype == np.float64
        assert np.shares_memory(parameter.detach().numpy(), array)
    assert not nn.Parameter(tensor, requires_grad=False).requires_grad
    assert not tensor.requires_grad


def test_a_computed_tensor_becomes_a_leaf() -> None:
    computed = distgrad.ones(2, requires_grad=True) * 2
    parameter = nn.Parameter(computed)
    assert parameter.is_leaf and parameter.grad_fn is None


def test_integers_cannot_be_trained() -> None:
    with pytest.raises(RuntimeError, match="floating point"):
        nn.Parameter(distgrad.tensor([1]))
    assert not nn.Parameter(distgrad.tensor([1]), requires_grad=False).requires_grad


def test_results_are_plain_tensors() -> None:
    parameter = nn.Parameter(distgrad.ones(2))
    assert type(parameter * 2) is distgrad.Tensor
    assert type(parameter.detach()) is distgrad.Tensor


def test_deepcopy_leaves_the_gradient_behind() -> None:
    parameter = nn.Parameter(distgrad.ones(2))
    (parameter * 3).sum().backward()
    duplicate = copy.deepcopy(parameter)
    assert type(duplicate) is nn.Parameter and duplicate.requires_grad and duplicate.grad is None
    assert parameter.grad is not None
    assert not np.shares_memory(duplicate.detach().numpy(), parameter.detach().numpy())


def test_text() -> None:
    assert repr(nn.Parameter(distgrad.tensor([1.0]))) == "Parameter containing:\ntensor([1.], requires_grad=True)"
    assert repr(nn.Parameter(distgrad.tensor([1.0]), False)) == "Parameter containing:\ntensor([1.])"


@pytest.mark.parity
def test_text_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    values = [[1.5, -2.0], [3.0, 4e-6]]
    assert repr(nn.Parameter(distgrad.tensor(values))) == repr(torch.nn.Parameter(torch.tensor(values)))
