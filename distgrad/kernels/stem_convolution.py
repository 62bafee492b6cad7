"""Convolution of images with few channels, as the first of a network: strips, and small products over them.

The windows along one input row are gathered once, as a strip ``(kw*C, N*Wo)``. Strips of neighbouring input rows lie
one after another, so the columns of an output row, ``(kh*kw*C, N*Wo)``, are ``kh`` neighbouring strips: a view. Each
input pixel is so copied ``kw/sw`` times, not ``kh*kw/(sh*sw)`` times. Windows are in the order (image, column), that of
pictures as they are stored; what a strip reads was first put into phases of the columns by the stride, so that every
copy is of runs of ``Wo`` pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from . import im2col
from .convolution_plan import ConvolutionPlan, ConvolutionShape, Epilogue
from .direct_convolution import DIRECT_ERROR, DirectPlan, contiguous_channels
from .gather import as_elements
from .small_products import cut, even_pieces, pack
from .workspace import Workspace

FloatArray: TypeAlias = NDArray[Any]

# Bytes of the strips of a block.
_STRIP_BYTES = 1 << 20
# Strips of an image that a block has at least: it makes the ``kh - sh`` that it shares with the next anew, and reads
# pictures in pieces so long. 7x7 of 32 pictures of 224x224: 41, 34.5 and 34.8 ms with 12, 28 and 96; 3x3, stride 2:
# 8.3, 7.6 and 7.0; 7x7 of 64 pictures of 64x64: 7.0, 6.1 and 5.7.
_STRIPS = 96
# The same for the weight's gradient, which reads the output's gradient in runs of a block's images.
_WEIGHT_STRIPS = 28
# Bytes of products of the weight's gradient that are added up together.
_SUMMED_BYTES = 1 << 19


class _Part(NamedTuple):
    """Output rows and images that are computed together."""

    rows: slice
    images: slice


class StemPlan(ConvolutionPlan):
    """Strips and GEMM; for vertical dilation 1 and one group.

    Args:
        shape: what to prepare for.

    Raises:
        ValueError: a shape with groups or with rows that are dilated.
    """

    name = "strips"
    error = DIRECT_ERROR

    def __init__(self, shape: ConvolutionShape) -> None:
        if shape.groups != 1 or shape.dilation[0] != 1:
            raise ValueError(
                f"strips need one group and vertical dilation 1, not groups={shape.groups}, dilation={shape.dilation}; "
                "use DirectPlan"
            )
        self.shape = s = shape
        self.inner = s.kh * s.kw * s.c
        self._cut = cut(self.inner, s.k)
        # Horizontal tap j of window w is pixel w*sw + j*dw - pw: in phase r = (j*dw - pw) mod sw, place w + shift.
        offsets = [j * s.dilation[1] - s.padding[1] for j in range(s.kw)]
        self._phases = sorted({offset % s.stride[1] for offset in offsets})
        self._taps = [(self._phases.index(offset % s.stride[1]), offset // s.stride[1]) for offset in offsets]
        self._least = min(shift for _, shift in self._taps)
        self._phase_width = s.out_w + max(shift for _, shift in self._taps) - self._least

    def pack(self, weight: FloatArray) -> FloatArray:
        """(1, K/n, kh*kw*C, n): see ``small_products``."""
        return pack(weight.transpose(2, 3, 1, 0)[None], self._cut.columns)

    def forward(
        self,
        x: FloatArray,
        packed: FloatArray,
        out: FloatArray,
        space: Workspace,
        bias: FloatArray | None = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        """See ``ConvolutionPlan.forward``; ``x`` is read fastest where the columns of an image are contiguous."""
        if not out.size:
            return
        s = self.shape
        rows_at_once = self._cut.rows or s.out_w
        pieces = -(-s.out_w // rows_at_once)
        step = -(-s.out_w // pieces)
        for part in self._parts(out.itemsize, _STRIPS):
            columns = self._columns(x, part, space)
            target = out[part.rows, :, part.images]
            for start in range(0, s.out_w, step):
                # (rows, images, 1, Wo, kh*kw*C) @ (panels, kh*kw*C, n) -> (rows, images, panels, Wo, n)
                a = columns[..., start : start + step].swapaxes(2, 3)[:, :, None]
                to = target[:, start : start + step].reshape(*target[:, start : start + step].shape[:3], *self._panels)
                np.matmul(a, packed[0], out=to.transpose(0, 2, 3, 1, 4))
            if bias is not None:
                runs = target.reshape(*target.shape[:2], -1)
                np.add(runs, np.tile(bias, target.shape[2]), out=runs)
            if epilogue is not None:
                epilogue(part.rows, part.images)

    @property
    def _panels(self) -> tuple[int, int]:
        return self.shape.k // self._cut.columns, self._cut.columns

    def backward(
        self,
        x: FloatArray | None,
        grad: FloatArray,
        weight: FloatArray,
        grad_x: FloatArray | None,
        grad_weight: FloatArray | None,
        space: Workspace,
    ) -> None:
        """See ``ConvolutionPlan.backward``."""
        if grad_x is not None:
            self._backward_input(grad, weight, grad_x, space)
        if grad_weight is None:
            return
        if x is None:
            raise ValueError("the gradient of a convolution's weight needs the input x, which is None")
        s, dtype = self.shape, grad.dtype
        grad = contiguous_channels(grad, "strips order", space)
        total = space.get("strips total", (self.inner, s.k), dtype)
        total.fill(0)
        if not grad.size:
            grad_weight[...] = 0
            return
        for part in self._parts(grad.itemsize, _WEIGHT_STRIPS):
            columns = self._columns(x, part, space)
            rows, images = columns.shape[:2]
            g = space.get("strips gradient", (rows, images, s.out_w, s.k), dtype)
            np.copyto(as_elements(g), as_elements(grad[part.rows, :, part.images].transpose(0, 2, 1, 3)))
            columns, g = _joined(columns), g.reshape(rows, images * s.out_w, s.k)
            _add_products(columns, g, total, space)
        np.copyto(grad_weight, total.reshape(s.kh, s.kw, s.c, s.k).transpose(3, 2, 0, 1))

    def _backward_input(self, grad: FloatArray, weight: FloatArray, grad_x: FloatArray, space: Workspace) -> None:
        """Rarely asked for: images have no gradient. A GEMM for each phase is as narrow as the channels are few, which
        adding up columns is not; but where a pixel has few taps the columns are the larger work."""
        s = self.shape
        if s.kh * s.kw < 4 * s.stride[0] * s.stride[1]:
            DirectPlan(s).backward(None, grad, weight, grad_x, None, space)
            return
        images = grad.transpose(2, 3, 0, 1)
        result = im2col.conv2d_input(images, weight, (s.n, s.c, s.h, s.w), s.stride, s.padding, s.dilation, 1)
        np.copyto(grad_x, result.transpose(2, 3, 0, 1))

    def _parts(self, itemsize: int, least: int) -> list[_Part]:
        """Rows and images of a block; a block's first ``kh - sh`` strips are those of the block before, made again."""
        s = self.shape
        strip = max(1, s.kw * s.c * s.out_w * itemsize)
        strips = max(1, _STRIP_BYTES // strip)
        images = max(1, min(s.n, strips // least))
        rows = max(1, min(s.out_h, (strips // images - s.kh) // s.stride[0] + 1))
        return [
            _Part(slice(row, min(s.out_h, row + rows)), slice(image, min(s.n, image + images)))
            for image in range(0, s.n, images)
            for row in range(0, s.out_h, rows)
        ]

    def _columns(self, x: FloatArray, part: _Part, space: Workspace) -> FloatArray:
        """(rows, images, kh*kw*C, Wo), a view of the strips."""
        s, dtype = self.shape, x.dtype
        rows, images = part.rows.stop - part.rows.start, part.images.stop - part.images.start
        # Strip t is of input row first + t.
        first = part.rows.start * s.stride[0] - s.padding[0]
        count = (rows - 1) * s.stride[0] + s.kh
        top, bottom = min(count, max(0, -first)), max(0, min(count, s.h - first))
        bottom = max(top, bottom)
        strips = space.get("strips", (count, s.kw, s.c, images, s.out_w), dtype)
        strips[:top] = 0
        strips[bottom:] = 0
        if bottom > top:
            phases = self._filled_phases(x[first + top : first + bottom, :, part.images], space)
            for j, (phase, shift) in enumerate(self._taps):
                at = shift - self._least
                np.copyto(strips[top:bottom, j], phases[phase][..., at : at + s.out_w])
        item, run = dtype.itemsize, images * s.out_w
        per_row = s.kw * s.c * run * item
        return as_strided(
            strips,
            (rows, images, self.inner, s.out_w),
            (s.stride[0] * per_row, s.out_w * item, run * item, item),
            writeable=False,
        )

    def _filled_phases(self, pixels: FloatArray, space: Workspace) -> FloatArray:
        """(phases, rows, C, images, places): place ``q`` is pixel ``(q + least) * sw + phase``, zero outside."""
        s = self.shape
        rows, width, images, channels = pixels.shape
        shape = (len(self._phases), rows, channels, images, self._phase_width)
        phases = space.get("strips phases", shape, pixels.dtype)
        for target, phase in zip(phases, self._phases, strict=True):
            start = self._least * s.stride[1] + phase
            left = min(self._phase_width, max(0, -(start // s.stride[1])))
            right = max(left, min(self._phase_width, (width - 1 - start) // s.stride[1] + 1))
            target[..., :left] = 0
            target[..., right:] = 0
            if right > left:
                source = pixels[:, start + left * s.stride[1] : start + (right - 1) * s.stride[1] + 1 : s.stride[1]]
                np.copyto(target[..., left:right], source.transpose(0, 3, 2, 1))
        return phases


def _joined(columns: FloatArray) -> FloatArray:
    """(rows, images, inner, Wo) as (rows, inner, images*Wo), a view."""
    rows, images, inner, width = columns.shape
    of_row, _, of_inner, item = columns.strides
    return as_strided(columns, (rows, inner, images * width), (of_row, of_inner, item), writeable=False)


def _add_products(columns: FloatArray, grad: FloatArray, total: FloatArray, space: Workspace) -> None:
    """``total += sum over rows of columns @ grad``.

    Args:
        columns: (rows, inner, run).
        grad: (rows, run, K).
        total: (inner, K).
        space: scratch memory.
    """
    rows, inner, run = columns.shape
    k = grad.shape[2]
    pieces = even_pieces(run, inner * k)
    left = columns.reshape(rows, inner, pieces, run // pieces).swapaxes(1, 2)
    right = grad.reshape(rows, pieces, run // pieces, k)
    together = max(1, _SUMMED_BYTES // max(1, total.nbytes * pieces))
    for first in range(0, rows, together):
        number = min(together, rows - first)
        products = space.get("strips products", (number, pieces, *total.shape), total.dtype)
        # (rows, pieces, inner, run/pieces) @ (rows, pieces, run/pieces, K)
        np.matmul(left[first : first + number], right[first : first + number], out=products)
        np.add(total, np.add.reduce(products.reshape(-1, *total.shape), axis=0), out=total)
