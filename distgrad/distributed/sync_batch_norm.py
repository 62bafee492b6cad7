"""``SyncBatchNorm``: batch normalization whose batch is that of all ranks together."""

from __future__ import annotations

import weakref
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..autograd import Tensor
from ..autograd.function import Function, FunctionCtx, once_differentiable
from ..kernels import batch_norm as kernels
from ..nn import functional as F
from ..nn.batchnorm import _BatchNorm
from ..nn.module import Module
from . import process_group
from .collective_log import labelled
from .communicator import Communicator

M = TypeVar("M", bound=Module)
Doubles = npt.NDArray[np.float64]


class Weighs(Protocol):
    """Who knows how many samples this rank's backward pass counts as: a reducer."""

    @property
    def samples(self) -> int | None: ...  # noqa: D102 - described in the class


class SyncBatchNorm(_BatchNorm):
    """Batch normalization over the elements of all ranks, as ``torch.nn.SyncBatchNorm`` defines it.

    In training each channel gets the mean and the variance that one process would find in the ranks' batches put
    together: ranks send the count, the mean and the summed squares of distances from it, which are combined in float64
    and in rank order (Chan, Golub and LeVeque, 1983), so that every rank has the same bits and nothing cancels. Shards
    may differ in size and may be empty. That is one message forward and one backward. In evaluation, and on one
    rank, it is ``BatchNorm2d`` for any number of dimensions.

    Inside ``DistributedDataParallel`` the gradient is that of the mean loss over all samples, however many each rank
    has; PyTorch's is only where all have equally many. Elsewhere it is the gradient of the sum of the ranks' losses. As
    in PyTorch the gradients of ``weight`` and ``bias`` are this rank's part. Every rank has to run forward and backward
    through the layer, also one without a sample. One whose loss counts as 0 (``set_samples(0)``) though it has samples
    lends them to the statistics, and what its parameters would learn through these is left out.

    Messages go over a duplicate of the communicator, which all layers share, so that they never meet those of the
    gradients that travel at the same time.

    Args:
        num_features: C of an input (N, C, ...).
        eps: added to the variance.
        momentum: how far the running statistics move; None for their mean over all batches.
        affine: whether there are ``weight`` and ``bias``, each (C,).
        track_running_stats: without them the batch's statistics serve in evaluation too, those of this rank.
        communicator: the ranks; default: those of ``distgrad.distributed.init``. PyTorch's ``process_group``.
        device: "cpu".
        dtype: of parameters and statistics, the default dtype without it.
        bias: whether there is a ``bias``, if ``affine``.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        communicator: Communicator | None = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self._ranks = _Shared(communicator)
        self._weighs: weakref.ref[Weighs] | None = None

    @property
    def communicator(self) -> Communicator:
        """The ranks whose batches are normalized together."""
        given = self._ranks.communicator
        return process_group.communicator() if given is None else given

    def weigh_by(self, weighs: Weighs) -> None:
        """From now on this rank's loss counts as ``weighs.samples``; called by ``DistributedDataParallel``."""
        self._weighs = weakref.ref(weighs)

    def _check_input(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")
        if input.shape[1] != self.num_features:
            raise ValueError(f"SyncBatchNorm: expected an input (N, {self.num_features}, ...), got {list(input.shape)}")

    def _batch_norm(  # type: ignore[override]
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        *,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        ranks = self.communicator
        if not self.training or ranks.world_size == 1:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        if input.dtype.kind != "f":
            raise RuntimeError(f"SyncBatchNorm: expected floating numbers, got {input.dtype}")
        out: Tensor = _SyncBatchNorm.apply(
            input, weight, bias, running_mean, running_var, momentum, eps, _own_channel(ranks), self._weighs
        )
        return out

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, communicator: Communicator | None = None) -> Module:
        """Replaces every ``BatchNorm1d``, ``2d`` and ``3d`` below ``module``, as PyTorch's method of this name.

        Parameters and statistics stay the same tensors, the mode and what ``nn.freeze`` has set stay too. A layer that
        occurs several times is replaced by one. Hooks of the replaced layers are not taken over.

        Args:
            module: changed in place, unless it is such a layer itself.
            communicator: the ranks; default: those of ``distgrad.distributed.init``.

        Returns:
            ``module``, or what replaces it.
        """
        return _converted(cls, module, communicator, {})

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_weighs": None}  # a copy belongs to no DistributedDataParallel


class _Shared:
    """Keeps a communicator from being copied with the model."""

    def __init__(self, communicator: Communicator | None) -> None:
        self.communicator = communicator

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def _converted(cls: type[SyncBatchNorm], module: Module, ranks: Communicator | None, done: dict[int, Module]) -> Module:
    if id(module) in done:
        return done[id(module)]
    result = module
    if isinstance(module, _BatchNorm):
        layer = cls(
            module.num_features,
            module.eps,
            module.momentum,
            affine=False,
            track_running_stats=False,
            communicator=ranks,
        )
        layer.affine, layer.track_running_stats = module.affine, module.track_running_stats
        layer._parameters.update(module._parameters)
        layer._buffers.update(module._buffers)
        layer.training, layer._frozen = module.training, module._frozen
        result = layer
    done[id(module)] = result
    for name, child in module._modules.items():  # not named_children, which gives a layer that occurs twice once
        if child is not None:
            result._modules[name] = _converted(cls, child, ranks, done)
    return result


_channels: weakref.WeakKeyDictionary[Communicator, Communicator] = weakref.WeakKeyDictionary()


def _own_channel(ranks: Communicator) -> Communicator:
    """The duplicate of ``ranks`` that all layers use; making it is a collective, at the first forward pass."""
    channel = _channels.get(ranks)
    if channel is None:
        channel = _channels[ranks] = ranks.duplicate()
    return channel


def combined(parts: Doubles) -> tuple[Doubles, Doubles, int]:
    """Mean, biased variance and number of elements of batches together (Chan, Golub and LeVeque, 1983).

    Args:
        parts: (ranks, 2 C + 1): of each batch the mean of each channel, the sum of squares of the distances from it,
            and the number of elements a channel.

    Returns:
        Mean (C,), variance (C,) and count; zeros without elements.
    """
    channels = parts.shape[1] // 2
    mean, squares, count = np.zeros(channels), np.zeros(channels), 0.0
    for part in parts:
        of_part, more = part[:channels], part[-1]
        if more == 0:
            continue
        total = count + more
        distance = of_part - mean
        mean = mean + distance * (more / total)
        squares = squares + part[channels:-1] + distance * distance * (count * more / total)
        count = total
    return mean, squares / max(1.0, count), int(count)


class _SyncBatchNorm(Function):
    """The operation; its collectives come in the order of the graph, which is that of all ranks."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        ranks: Communicator,
        weighs: weakref.ref[Weighs] | None,
    ) -> Tensor:
        array = input._data
        own_mean, own_var = kernels.batch_norm_statistics(array)
        own_count = array.size // max(1, array.shape[1])
        with labelled("SyncBatchNorm forward"):
            parts = ranks.all_gather(np.concatenate([own_mean, own_var * own_count, [own_count]]))
        mean, var, count = combined(parts)
        if count == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {list(input.shape)} and no more "
                "on all ranks together"
            )
        output, mean, invstd, var = kernels.batch_norm_normalize(
            array,
            mean,
            var,
            None if weight is None else weight._data,
            None if bias is None else bias._data,
            eps,
        )
        if running_mean is not None and running_var is not None:
            kernels.move_statistics(running_mean._data, running_var._data, mean, var, count, momentum)
            running_mean._changed()
            running_var._changed()
        ctx.save_for_backward(input, weight)
        ctx.statistics = mean, invstd, count  # type: ignore[attr-defined]
        ctx.ranks, ctx.weighs = ranks, weighs  # type: ignore[attr-defined]
        return Tensor(output)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        assert input is not None
        mean, invstd, count = ctx.statistics  # type: ignore[attr-defined]
        array, g = input._data, gradient._data
        own_sum, own_dot = kernels.batch_norm_backward_sums(g, array, mean, invstd)
        grad_input: Tensor | None = None
        if ctx.needs_input_grad[0]:
            own = _weight_of(ctx.weighs)  # type: ignore[attr-defined]
            # A rank whose loss does not count has no say, also where it is NaN, the mean over no sample.
            sums = own * np.concatenate([own_sum, own_dot]) if own else np.zeros(2 * len(own_sum))
            with labelled("SyncBatchNorm backward"):
                ctx.ranks.all_reduce(sums)  # type: ignore[attr-defined]
            sums /= own or 1
            grad_sum, grad_dot = np.split(sums, 2)
            values = None if weight is None else weight._data
            grad_input = Tensor(
                kernels.batch_norm_backward_input(g, array, values, mean, invstd, grad_sum, grad_dot, count)
            )
        grad_weight = Tensor(own_dot * invstd) if ctx.needs_input_grad[1] else None
        grad_bias = Tensor(own_sum) if ctx.needs_input_grad[2] else None
        return grad_input, grad_weight, grad_bias, *[None] * 6


def _weight_of(weighs: weakref.ref[Weighs] | None) -> float:
    """How much this rank's loss counts beside those of the others: 1 on all, or its samples."""
    who = None if weighs is None else weighs()
    if who is None:
        return 1.0
    samples = who.samples
    if samples is None:
        raise RuntimeError(
            "SyncBatchNorm cannot tell how many samples this rank had, since no argument of DistributedDataParallel's "
            "forward was a tensor: call set_samples(n) before backward()"
        )
    return float(samples)
