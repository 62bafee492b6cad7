from __future__ import annotations

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.data import Dataset, Subset, TensorDataset, random_split, sample_generator


class CountingDataset(Dataset[int]):
    def __getitem__(self, index):
        return index * 10

    def __len__(self):
        return 10

    def get(self, index, rng):
        return index * 10 + int(rng.integers(1, 10))


def test_tensor_dataset_gives_rows_that_share_memory():
    images, labels = np.arange(12.0, dtype=np.float32).reshape(3, 4), np.array([5, 6, 7])
    dataset = TensorDataset(Tensor(images, requires_grad=True), labels)
    image, label = dataset[1]
    assert len(dataset) == 3 and label == 6 and label.dtype == np.int64
    assert isinstance(image, Tensor) and not image.requires_grad
    assert np.shares_memory(image.numpy(), images)
    np.testing.assert_array_equal(image.numpy(), images[1])
    scalar = TensorDataset(Tensor(labels))[2][0]
    assert isinstance(scalar, Tensor) and scalar.shape == () and scalar.item() == 7


@pytest.mark.parametrize("arrays", [(), (np.zeros(3), np.zeros(4)), (np.zeros(()),)])
def test_tensor_dataset_refuses_unequal_lengths(arrays):
    with pytest.raises(ValueError, match="first dimensions are equal, got shapes"):
        TensorDataset(*arrays)


def test_subset_passes_index_and_generator_on():
    subset = Subset(Subset(CountingDataset(), [9, 4, 2, 7]), [3, 0])
    assert len(subset) == 2 and [subset[i] for i in range(2)] == [70, 90]
    drawn = subset.get(0, sample_generator(0, 0, 0))
    assert drawn == 70 + sample_generator(0, 0, 0).integers(1, 10)
    with pytest.raises(IndexError):
        subset[2]


def test_get_without_augmentation_is_getitem():
    dataset = TensorDataset(np.arange(3))
    assert dataset.get(2, sample_generator(0, 0, 2)) == (2,)


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [((7, 3), [7, 3]), ((0.7, 0.3), [7, 3]), ((0.34, 0.33, 0.33), [4, 3, 3]), ((10, 0), [10, 0]), ((0.5, 0.5), [5, 5])],
)
def test_random_split_is_a_partition(lengths, sizes):
    parts = random_split(CountingDataset(), lengths, seed=3)
    assert [len(part) for part in parts] == sizes
    assert sorted(index for part in parts for index in part.indices) == list(range(10))
    again = random_split(CountingDataset(), lengths, seed=3)
    assert [part.indices for part in again] == [part.indices for part in parts]
    other = random_split(CountingDataset(), lengths, seed=4)
    assert [part.indices for part in other] != [part.indices for part in parts]


@pytest.mark.parity
@pytest.mark.parametrize("lengths", [(0.1, 0.2, 0.7), (0.15, 0.85), (0.55, 0.45)])
def test_random_split_rounds_fractions_as_torch(lengths):
    torch_data = pytest.importorskip("torch.utils.data")
    theirs = [len(part) for part in torch_data.random_split(range(10), lengths)]
    assert [len(part) for part in random_split(CountingDataset(), lengths)] == theirs


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((5, 4), r"\[5, 4\] add up to 9, the data set has 10"),
        ((0.5, 0.4), "fractions must add up to 1"),
        ((11, -1), "must not be negative"),
        ((float("nan"), 0.5), "must not be negative"),
    ],
)
def test_random_split_refuses(lengths, message):
    with pytest.raises(ValueError, match=message):
        random_split(CountingDataset(), lengths)
