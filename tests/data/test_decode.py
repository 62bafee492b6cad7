"""The decoders that trade bits for time: how far from the exact one they are, and that they draw the same boxes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from distgrad.data import ImageFolder, sample_generator
from distgrad.data.transforms import CenterCrop, Compose, RandomResizedCrop, Resize
from distgrad.errors import DataError

from .photos import jpeg, photo

SIZES = [(500, 375), (375, 500), (224, 224), (901, 611)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for name in ("jpg", "png"):
        (root / name).mkdir()
    for number, (width, height) in enumerate(SIZES):
        (root / "jpg" / f"{number}.jpg").write_bytes(jpeg(width, height, number))
        photo(width, height, number).save(root / "png" / f"{number}.png")
    return root


@pytest.fixture
def decoded_sizes(monkeypatch):
    sizes = []
    load = JpegImageFile.load
    monkeypatch.setattr(JpegImageFile, "load", lambda self: sizes.append(self.size) or load(self))
    return sizes


def difference(folder, mode, transform, index):
    """The mean and the largest difference of a sample's bytes from those of the exact mode."""
    images = []
    for decode in ("exact", mode):
        image, _ = ImageFolder(folder, transform, decode=decode).get(index, sample_generator(3, 1, index))
        assert image.mode == "RGB"
        images.append(np.asarray(image).astype(int))
    apart = np.abs(images[0] - images[1])
    return apart.mean(), apart.max()


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (73, 64), (32, 32)])
def test_a_resized_box_is_nearly_the_crop_of_the_resized_photo(folder, index, resize, crop):
    mean, most = difference(folder, "box", Compose([Resize(resize), CenterCrop(crop)]), index)
    assert mean < 0.02 and most <= 1


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("size", [224, 64, 32])
def test_a_random_box_differs_at_its_edges(folder, index, size):
    transform = RandomResizedCrop(size)
    assert difference(folder, "box", transform, index)[0] < 1
    images = [
        np.asarray(ImageFolder(folder, transform, decode=mode).get(index, sample_generator(3, 1, index))[0]).astype(int)
        for mode in ("exact", "box")
    ]
    inner = np.abs(images[0] - images[1])[2:-2, 2:-2]
    assert inner.max() <= 2


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize(
    "transform", [Compose([Resize(73), CenterCrop(64)]), Resize(64), RandomResizedCrop(64), Compose([Resize((24, 32))])]
)
def test_a_photo_decoded_small_is_near_to_one_decoded_whole(folder, index, transform):
    assert difference(folder, "fast", transform, index)[0] < 6


def test_how_much_of_a_photo_is_decoded(folder, decoded_sizes):
    def sizes(mode, *transforms):
        decoded_sizes.clear()
        ImageFolder(folder, Compose(transforms), decode=mode)[0]
        return decoded_sizes[0]

    to_64 = Resize(73), CenterCrop(64)
    assert sizes("exact", *to_64) == sizes("box", *to_64) == (500, 375)
    assert sizes("fast", *to_64) == (125, 94)  # a quarter
    assert sizes("fast", Resize(256), CenterCrop(224)) == (500, 375)
    assert sizes("fast", Resize(180)) == (250, 188)
    assert sizes("fast", Resize(30)) == (63, 47)  # an eighth
    # Nothing is known of what these need.
    assert sizes("fast", CenterCrop(20)) == sizes("fast", lambda image: image) == sizes("fast") == (500, 375)
    assert sizes("fast", lambda image: image, Resize(30)) == (500, 375)
    # A small box is needed at a higher scale than the whole.
    box = RandomResizedCrop(32, scale=(0.01, 0.011))
    assert sizes("fast", box) == (500, 375)


def test_a_crop_larger_than_the_resized_photo_gets_its_border(folder):
    transform = Compose([Resize(30), CenterCrop(50)])
    exact, fast = (
        np.asarray(ImageFolder(folder, transform, decode=mode)[2][0]).astype(int) for mode in ("exact", "fast")
    )
    assert fast.shape == (50, 50, 3) and not fast[:10].any()
    assert np.abs(exact - fast).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_that_lies_on_its_side(tmp_path, orientation, decoded_sizes):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(jpeg(600, 160, exif=exif))
    transform = Resize((80, 40) if orientation >= 5 else (40, 80))
    exact, fast = (
        np.asarray(ImageFolder(tmp_path, transform, decode=mode, exif_orientation=True)[0][0]).astype(int)
        for mode in ("exact", "fast")
    )
    assert (150, 40) in decoded_sizes
    assert exact.shape == fast.shape and np.abs(exact - fast).mean() < 6


def test_other_modes_of_colour(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    photo(200, 150).convert("L").save(tmp_path / "a" / "grey.jpg")
    photo(200, 150).convert("CMYK").save(tmp_path / "a" / "cmyk.jpg")
    photo(200, 150).convert("P").save(tmp_path / "b" / "palette.png")
    for index in range(3):
        assert difference(tmp_path, "fast", Resize(32), index)[0] < 6


def test_errors_say_the_same_in_every_mode(folder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(jpeg(200, 150)[:900])
    said = set()
    for mode in ("exact", "box", "fast"):
        with pytest.raises(DataError, match="is truncated or damaged and cannot be decoded") as caught:
            ImageFolder(tmp_path, Resize(20), decode=mode)[0]
        said.add(str(caught.value))
        with pytest.raises(DataError, match=r"cannot be transformed: an image of 500 x 375 pixels would be resized"):
            ImageFolder(folder, Resize(20000), decode=mode)[0]
    assert len(said) == 1
    with pytest.raises(ValueError, match="decode must be one of exact, box, fast, got 'slow'"):
        ImageFolder(folder, decode="slow")
