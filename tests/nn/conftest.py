from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad


@pytest.fixture
def against_torch() -> Callable[..., None]:
    """Compares a layer with PyTorch's in float64: state, text, output, all gradients, and the state afterwards."""
    torch = pytest.importorskip("torch")

    def compare(ours: Any, theirs: Any, *shapes: tuple[int, ...], steps: int = 1, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        ours.double()
        theirs.double()
        assert repr(ours) == repr(theirs)
        state = theirs.state_dict()
        assert list(ours.state_dict()) == list(state)
        for value in state.values():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(np.asarray(0.5 + rng.random(tuple(value.shape)))))
        ours.load_state_dict({name: value.numpy() for name, value in state.items()})
        for _ in range(steps):
            arrays = [rng.standard_normal(shape) for shape in shapes]
            inputs = [distgrad.tensor(array, requires_grad=True) for array in arrays]
            their_inputs = [torch.tensor(array, requires_grad=True) for array in arrays]
            # an operation in front, since a leaf may not be changed in place
            output, expected = ours(*(x * 1.0 for x in inputs)), theirs(*(x * 1.0 for x in their_inputs))
            np.testing.assert_allclose(output.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
            if expected.requires_grad:
                gradient = rng.standard_normal(tuple(expected.shape))
                output.backward(distgrad.tensor(gradient))
                expected.backward(torch.tensor(gradient))
            for mine, other in zip(inputs, their_inputs, strict=True):
                assert (mine.grad is None) == (other.grad is None)
                if other.grad is not None:
                    np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-12, atol=1e-12)
        for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            if other.grad is None:
                assert mine.grad is None, name
                continue
            np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-12, atol=1e-12, err_msg=name)
        for (name, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert str(mine.dtype) == str(other.dtype).removeprefix("torch.")
            np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-12, atol=1e-12, err_msg=name)

    return compare
