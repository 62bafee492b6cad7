"""Sequences of different lengths: padded to one length, or packed without padding, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...autograd import Tensor
from ...ops.join import cat, stack
from ...registry import no_attribute


class PackedSequence(NamedTuple):
    """Sequences without padding: their first elements, longest sequence first, then their second ones, and so on.

    Attributes:
        data: the elements, (sum of the lengths, ...).
        batch_sizes: how many sequences have a first element, a second one, and so on; int64.
        sorted_indices: which sequence comes where, from the longest; None if that is their order.
        unsorted_indices: where each sequence is.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with other elements, as ``Tensor.to`` gives them."""
        return self._replace(data=self.data.to(*args, **kwargs))

    def float(self) -> PackedSequence:
        """The same with elements in float32."""
        return self._replace(data=self.data.float())

    def double(self) -> PackedSequence:
        """The same with elements in float64."""
        return self._replace(data=self.data.double())


def _lengths(lengths: Tensor | Sequence[int]) -> Any:
    values = lengths._data if isinstance(lengths, Tensor) else np.asarray(lengths)
    if values.ndim != 1:
        raise RuntimeError(f"lengths should be a 1D tensor or a list, but its shape is {list(values.shape)}")
    return values.astype(np.int64)


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs sequences that were padded to one length, which recurrent layers then pass over without the padding.

    Args:
        input: (T, N, ...), or (N, T, ...) with ``batch_first``.
        lengths: of the sequences, each at least 1.
        batch_first: which of the two.
        enforce_sorted: the lengths must not increase; without it they are sorted here.

    Raises:
        RuntimeError: lengths that are not positive, too many, too few, too large or not sorted.
    """
    sizes = _lengths(lengths)
    padded = input.transpose(0, 1) if batch_first else input
    if len(sizes) != padded.shape[1]:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(sizes)} (batch_size={padded.shape[1]})"
        )
    if (sizes <= 0).any():
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if sizes.max(initial=0) > padded.shape[0]:
        raise RuntimeError(
            f"a length of {sizes.max()} is more than the {padded.shape[0]} steps of the padded sequences"
        )
    order = unsorted = None
    if not enforce_sorted:
        places = np.argsort(-sizes, kind="stable")
        order, unsorted = Tensor(places), invert_permutation(Tensor(places))
        sizes, padded = sizes[places], padded.index_select(1, order)
    elif (np.diff(sizes) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement."
        )
    counts = (sizes[None] > np.arange(sizes.max(initial=0))[:, None]).sum(1)
    step, sample = np.nonzero(np.arange(len(sizes)) < counts[:, None])
    return PackedSequence(padded[Tensor(step), Tensor(sample)], Tensor(counts.astype(np.int64)), order, unsorted)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The sequences padded to the length of the longest, and their lengths: the reverse of ``pack_padded_sequence``.

    Args:
        sequence: what was packed.
        batch_first: give (N, T, ...) instead of (T, N, ...).
        padding_value: what is filled in.
        total_length: pad to this length instead.

    Raises:
        ValueError: ``total_length`` is less than the longest length.
    """
    counts = sequence.batch_sizes._data
    longest = len(counts)
    if total_length is not None and total_length < longest:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, but got total_length="
            f"{total_length} and max sequence length being {longest}"
        )
    steps, batch = total_length or longest, int(counts[0])
    rest = tuple(sequence.data.shape[1:])
    filling = Tensor(np.full((1, *rest), padding_value, sequence.data.dtype))
    # for each place which element of the data, the last one being the padding
    where = np.full((steps, batch), len(sequence.data), np.int64)
    where[:longest][np.arange(batch) < counts[:, None]] = np.arange(len(sequence.data))
    padded = cat([sequence.data, filling])[Tensor(where)]
    lengths = Tensor((np.arange(batch) < counts[:, None]).sum(0).astype(np.int64))
    if sequence.unsorted_indices is not None:
        padded, lengths = padded.index_select(1, sequence.unsorted_indices), lengths[sequence.unsorted_indices]
    return (padded.transpose(0, 1) if batch_first else padded), lengths


def pad_sequence(
    sequences: Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Sequences of different lengths as one tensor.

    Args:
        sequences: each (its length, ...).
        batch_first: give (N, T, ...) instead of (T, N, ...).
        padding_value: what is filled in.
        padding_side: "right", behind a sequence, or "left", in front of it.

    Raises:
        RuntimeError: there are no sequences, their elements differ in shape, or another side.
    """
    given = list(sequences)
    if not given:
        raise RuntimeError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"padding_side must be 'left' or 'right', but is {padding_side!r}")
    rest, longest = tuple(given[0].shape[1:]), max(len(sequence) for sequence in given)
    rows = []
    for sequence in given:
        if tuple(sequence.shape[1:]) != rest:
            raise RuntimeError(
                f"pad_sequence: elements of shape {list(sequence.shape[1:])} stand beside elements of {list(rest)}"
            )
        filling = Tensor(np.full((longest - len(sequence), *rest), padding_value, sequence.dtype))
        rows.append(cat([sequence, filling] if padding_side == "right" else [filling, sequence]))
    return stack(rows, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False
) -> list[Tensor]:
    """The sequences that ``pad_sequence`` put together, without what was filled in behind them."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[: int(length)] for row, length in zip(rows, _lengths(lengths), strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs sequences of different lengths; see ``pack_padded_sequence``."""
    lengths = [len(sequence) for sequence in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences that ``pack_sequence`` packed."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """Where each index stands in ``permutation``."""
    if permutation is None:
        return None
    inverse = np.empty_like(permutation._data)
    inverse[permutation._data] = np.arange(permutation.numel())
    return Tensor(inverse)


__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.nn.utils.rnn'", name, __all__)
