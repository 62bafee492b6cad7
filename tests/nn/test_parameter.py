from __future__ import annotations

import copy
import pickle

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


def test_a_parameter_of_nothing_is_empty() -> None:
    assert nn.Parameter().shape == (0,) and nn.Parameter().requires_grad
    assert nn.Buffer().shape == (0,) and not nn.Buffer().requires_grad


def test_buffers_are_registered_by_assignment() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept = nn.Buffer(distgrad.ones(2))
            self.passing = nn.Buffer(distgrad.zeros(2), persistent=False)

    net = Net()
    assert [name for name, _ in net.named_buffers()] == ["kept", "passing"] and list(net.state_dict()) == ["kept"]
    net.kept = distgrad.zeros(3)
    assert net.state_dict()["kept"].shape == (3,)
    net.passing = nn.Buffer(distgrad.ones(1))
    assert list(net.state_dict()) == ["kept", "passing"]
    assert not list(net.parameters()) and net.double().kept.dtype == np.float64
    duplicate = copy.deepcopy(net)
    assert isinstance(duplicate.passing, nn.Buffer) and duplicate.passing is not net.passing
    again = pickle.loads(pickle.dumps(Net().passing))
    assert isinstance(again, nn.Buffer) and not again.persistent and again.tolist() == [0.0, 0.0]

    class Forgetful(nn.Module):
        def __init__(self) -> None:
            self.x = nn.Buffer(distgrad.ones(1))

    with pytest.raises(AttributeError, match=r"cannot assign buffer before Module.__init__\(\) call"):
        Forgetful()


def test_buffers_print_as_tensors() -> None:
    assert repr(nn.Buffer(distgrad.tensor([1.0]))) == "tensor([1.])"
