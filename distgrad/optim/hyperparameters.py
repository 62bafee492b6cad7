"""What the optimizers' hyperparameters may be, in one place: PyTorch's ranges and messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor

_NOT_NEGATIVE = {
    "lr": "learning rate",
    "eps": "epsilon value",
    "weight_decay": "weight_decay value",
    "momentum": "momentum value",
    "momentum_decay": "momentum_decay value",
    "alpha": "alpha value",
    "lr_decay": "lr_decay value",
    "initial_accumulator_value": "initial_accumulator_value value",
    "trust_coefficient": "trust_coefficient value",
}
# PyTorch's choices between implementations of the same update. There is one here, so that there is nothing to choose.
_CHOICES = {
    "foreach": "every update already runs over blocks of a parameter",
    "fused": "every update already runs over blocks of a parameter",
    "capturable": "there are no CUDA graphs to capture a step in",
    "differentiable": "a step is not recorded by autograd",
}


def check_hyperparameters(optimizer: str, group: dict[str, Any]) -> None:
    """Refuses values that no optimizer takes, in whichever hyperparameters ``group`` has.

    Written so that nan is refused too.

    Args:
        optimizer: the name of its class, for the message.
        group: hyperparameters by name.

    Raises:
        ValueError: a value outside its range, or a learning rate that is a tensor of several elements.
        NotImplementedError: ``foreach``, ``fused``, ``capturable`` or ``differentiable`` that is true.
    """
    lr = group.get("lr")
    if isinstance(lr, Tensor | np.ndarray) and np.size(lr._data if isinstance(lr, Tensor) else lr) != 1:
        raise ValueError(f"Tensor lr must be 1-element, this has the shape {list(lr.shape)}")
    for key, name in _NOT_NEGATIVE.items():
        if key in group and not float(group[key]) >= 0.0:
            raise ValueError(f"Invalid {name}: {group[key]}")
    for index, beta in enumerate(group.get("betas", ())):
        if not 0.0 <= float(beta) < 1.0:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}")
    if "rho" in group and not 0.0 <= float(group["rho"]) <= 1.0:
        raise ValueError(f"Invalid rho value: {group['rho']}")
    for key, reason in _CHOICES.items():
        if group.get(key):
            raise NotImplementedError(f"{optimizer}: {key}={group[key]} is not supported, since {reason}; leave it out")
