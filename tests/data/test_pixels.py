"""A batch normalized at once has the bits of photos normalized one by one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distgrad.autograd import Tensor
from distgrad.data import DataLoader, Dataset, ImageFolder, Subset
from distgrad.data.pixels import PixelTail
from distgrad.data.transforms import CenterCrop, Compose, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToTensor

from .photos import jpeg, photo

NORMALIZE = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def one_by_one(photos, *transforms):
    return np.stack([Compose([ToTensor(), *transforms])(image) for image in photos])


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


@pytest.mark.parametrize("normalize", [None, NORMALIZE, Normalize([0.5], [0.25]), Normalize([3, -1, 0], [-2, 1e-3, 7])])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 300, 201), (1, 2, 40000), (4, 64, 64)])
def test_assembled_to_the_last_bit(normalize, shape):
    count, height, width = shape
    photos = list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))
    photos[0] = photos[0][::-1]  # any strides
    tail = PixelTail(ToTensor(), normalize)
    expected = one_by_one(photos, *([] if normalize is None else [normalize]))
    batch = tail.assemble(photos)
    assert batch.dtype == np.float32 and batch.shape == expected.shape and batch.flags.c_contiguous
    np.testing.assert_array_equal(bits(batch), bits(expected))


def test_every_byte_in_every_channel():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    expected = one_by_one([ramp], NORMALIZE)
    np.testing.assert_array_equal(bits(PixelTail(ToTensor(), NORMALIZE).assemble([ramp])), bits(expected))


@pytest.mark.parametrize(
    ("transforms", "steps"),
    [
        ([ToTensor()], 1),
        ([CenterCrop(3), ToTensor(), NORMALIZE], 2),
        ([ToTensor(), NORMALIZE, abs], None),
        ([CenterCrop(3), NORMALIZE], None),
        ([NORMALIZE], None),
        ([], None),
        ([ToTensor(), Normalize([1, 2], [1, 2])], None),
        ([ToTensor(), Normalize([1], [1e-60])], None),  # zero in float32
        ([type("Mine", (ToTensor,), {})()], None),
    ],
)
def test_which_pipelines_end_so(transforms, steps):
    tail = PixelTail.of(transforms)
    assert (tail and tail.steps) == steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for name in ("a", "b"):
        (root / name).mkdir()
        for number in range(4):
            (root / name / f"{number}.jpg").write_bytes(jpeg(40 + number, 30, number))
    return root


class OneByOne(Dataset):
    """The same samples, normalized one by one."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        raise AssertionError("the loader asks by get")

    def get(self, index, rng):
        return self.dataset.get(index, rng)


AUGMENTED = Compose([RandomResizedCrop(24), RandomHorizontalFlip(), ToTensor(), NORMALIZE])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("transform", [AUGMENTED, Compose([CenterCrop(33), ToTensor()])])
def test_a_loader_gives_the_bits_of_samples_normalized_one_by_one(folder, num_workers, transform):
    dataset = ImageFolder(folder, transform)
    for photos in (dataset, Subset(dataset, [5, 2, 7])):
        assert photos.pixel_tail is not None and OneByOne(photos).pixel_tail is None
        fast = DataLoader(photos, 3, num_workers=num_workers, seed=4)
        slow = DataLoader(OneByOne(photos), 3, seed=4)
        for (images, labels), (expected, same) in zip(fast, slow, strict=True):
            assert isinstance(images, Tensor) and labels.numpy().tolist() == same.numpy().tolist()
            np.testing.assert_array_equal(bits(images.numpy()), bits(expected.numpy()))


def test_what_cannot_be_assembled_goes_the_old_way(folder):
    def grey(image):
        return image.convert("L")

    dataset = ImageFolder(folder, Compose([CenterCrop(20), grey, ToTensor()]))
    images, _ = next(iter(DataLoader(dataset, 3)))
    assert images.shape == (3, 1, 20, 20)
    # Every other photo is grey: the shapes differ, as they always did.
    dataset.transform = Compose([CenterCrop(20), lambda i: grey(i) if i.getpixel((0, 0))[0] % 2 else i, ToTensor()])
    shapes = {dataset[index][0].shape for index in range(8)}
    assert shapes == {(1, 20, 20), (3, 20, 20)}
    with pytest.raises(ValueError, match="samples of one batch must have the same shape"):
        next(iter(DataLoader(dataset, 8)))
    dataset.transform = ToTensor()
    with pytest.raises(ValueError, match=r"must have the same shape, got \(3, 30, 40\), \(3, 30, 41\)"):
        next(iter(DataLoader(dataset, 8)))
    dataset.transform = Compose([CenterCrop(20), ToTensor(), Normalize([1, 2], [1, 2])])
    with pytest.raises(ValueError, match="2 means for 3 channels") as caught:
        next(iter(DataLoader(dataset, 2)))
    assert "while loading sample 0" in caught.value.__notes__[0]


def test_arrays_and_custom_samples(folder):
    dataset = ImageFolder(folder, Compose([CenterCrop(20), np.asarray, ToTensor()]))
    images, _ = next(iter(DataLoader(dataset, 2)))
    expected = np.stack([dataset[index][0] for index in range(2)])
    np.testing.assert_array_equal(images.numpy(), expected)

    class Negative(ImageFolder):
        def get(self, index, rng):
            image, target = super().get(index, rng)
            return -image, target

    images, _ = next(iter(DataLoader(Negative(folder, Compose([CenterCrop(20), ToTensor()])), 2)))
    np.testing.assert_array_equal(images.numpy(), -expected)

    class Last(Subset):
        def get(self, index, rng):
            return super().get(len(self) - 1, rng)

    last = DataLoader(Last(dataset, [1, 0]), 2)
    np.testing.assert_array_equal(next(iter(last))[0].numpy(), expected[[0, 0]])
    # A collate_fn sees finished samples.
    seen = []
    next(iter(DataLoader(dataset, 2, collate_fn=lambda samples: seen.extend(samples))))
    assert all(image.dtype == np.float32 and image.shape == (3, 20, 20) for image, _ in seen)


def test_an_empty_batch_is_like_the_others(folder):
    dataset = ImageFolder(folder, AUGMENTED)
    first, empty = DataLoader(dataset, batch_sampler=[[1], []])
    assert first[0].shape == (1, 3, 24, 24)
    assert empty[0].shape == (0, 3, 24, 24) and empty[0].dtype == np.float32 and empty[1].shape == (0,)


def test_a_photo_as_pillow_has_it():
    tail = PixelTail(ToTensor(), NORMALIZE)
    image = photo(6, 4)
    np.testing.assert_array_equal(tail.bytes_of(image), np.asarray(image))
    grey = Image.new("L", (6, 4), 255)
    with pytest.raises(ValueError, match="3 means for 1 channels"):
        tail.bytes_of(grey)
    assert PixelTail(ToTensor()).bytes_of(grey).tolist() == np.ones((1, 4, 6)).tolist()
