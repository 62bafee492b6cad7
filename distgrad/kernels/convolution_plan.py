"""What a convolution plan is: one algorithm prepared for one shape, for arrays in HWNC order.

A plan knows shapes only. It holds no weights and no scratch, never changes after it was made, and may be used by any
number of threads at once; what it writes over is in the ``Workspace`` that a call brings. Which algorithm a shape gets
is decided in ``convolution_choice``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .fused_norm import Activation, add_activate
from .window import window_count
from .workspace import Workspace

FloatArray: TypeAlias = NDArray[Any]
Pair: TypeAlias = tuple[int, int]

# Called as epilogue(rows, images) when these rows of these images of the output are complete and still in cache.
Epilogue: TypeAlias = Callable[[slice, slice], None]


@dataclass(frozen=True)
class Finish:
    """The epilogue ``out = activation(out + residual)``. A plan that can do it while it writes does not call it.

    Attributes:
        out: the convolution's output, (Ho, Wo, N, K).
        residual: what to add, of the shape of ``out``, or None.
        activation: None, ``"relu"`` or limits ``(low, high)``.
    """

    out: FloatArray
    residual: FloatArray | None
    activation: Activation

    def __call__(self, rows: slice, images: slice) -> None:
        """Does it to some rows of some images."""
        extra = None if self.residual is None else self.residual[rows, :, images]
        add_activate(self.out[rows, :, images], extra, self.activation)

    @property
    def limits(self) -> tuple[float, float] | None:
        """The activation as limits."""
        return (0.0, math.inf) if self.activation == "relu" else self.activation


@dataclass(frozen=True)
class ConvolutionShape:
    """All that a plan depends on: ``N`` images, ``C`` channels in, ``K`` out, kernel ``kh x kw``, input ``H x W``."""

    n: int
    c: int
    h: int
    w: int
    k: int
    kh: int
    kw: int
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    dtype: np.dtype[Any]

    @property
    def out_h(self) -> int:
        """Rows of the output."""
        return window_count(self.h, self.kh, self.stride[0], self.padding[0], self.dilation[0])

    @property
    def out_w(self) -> int:
        """Columns of the output."""
        return window_count(self.w, self.kw, self.stride[1], self.padding[1], self.dilation[1])

    @property
    def multiplications(self) -> int:
        """Products that the definition asks for."""
        return self.n * self.out_h * self.out_w * self.k * (self.c // self.groups) * self.kh * self.kw


class ConvolutionPlan(ABC):
    """One algorithm for one shape; all three partial products of the convolution.

    Attributes:
        shape: what it was made for.
        name: the algorithm, such as ``"winograd F(4x4)"``.
        error: bound of the root mean square error of a float32 result, relative to the result's root mean square.
    """

    shape: ConvolutionShape
    name: str
    error: float

    @abstractmethod
    def pack(self, weight: FloatArray) -> Any:
        """The weight (K, C/groups, kh, kw) as ``forward`` reads it: a new array, or several."""

    @abstractmethod
    def forward(
        self,
        x: FloatArray,
        packed: Any,
        out: FloatArray,
        space: Workspace,
        bias: FloatArray | None = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        """Convolves.

        Args:
            x: (H, W, N, C), any strides; fastest where ``N*C`` are contiguous.
            packed: from ``pack``.
            out: (Ho, Wo, N, K), ``N*K`` contiguous; rows and pixels may have gaps. Overwritten.
            space: scratch memory.
            bias: (K,), added to every pixel.
            epilogue: called for each part of the output as it is finished; every part is named exactly once.
        """

    @abstractmethod
    def backward(
        self,
        x: FloatArray | None,
        grad: FloatArray,
        weight: FloatArray,
        grad_x: FloatArray | None,
        grad_weight: FloatArray | None,
        space: Workspace,
    ) -> None:
        """The gradients of the input and of the weight; what is None is not computed.

        Args:
            x: (H, W, N, C), as in ``forward``; may be None where ``grad_weight`` is.
            grad: (Ho, Wo, N, K), the gradient of the output, any strides; fastest where ``N*K`` are contiguous.
            weight: (K, C/groups, kh, kw).
            grad_x: (H, W, N, C), ``N*C`` contiguous. Overwritten.
            grad_weight: (K, C/groups, kh, kw), any strides. Overwritten.
            space: scratch memory.
        """
