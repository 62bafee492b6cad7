"""Which box of a photo a pipeline's first steps keep, and at what size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distgrad.data import sample_generator
from distgrad.data.transforms import CenterCrop, RandomResizedCrop, Resize, opening_window
from distgrad.data.window import Window

from .photos import photo


def test_the_window_of_a_resize_and_a_crop():
    window, steps = opening_window([Resize(50), CenterCrop((40, 30)), str], 200, 100, None)
    assert steps == 2 and window.size == (30, 40)
    assert window.box == (70.0, 10.0, 130.0, 90.0)
    window, steps = opening_window([Resize((50, 20)), str], 200, 100, None)
    assert steps == 1 and window == Window((0.0, 0.0, 200.0, 100.0), (20, 50), Image.Resampling.BILINEAR)
    # The crop would have to add a border.
    assert opening_window([Resize(50), CenterCrop(60)], 200, 100, None)[1] == 1
    assert opening_window([CenterCrop(60), Resize(50)], 200, 100, None) is None
    assert opening_window([], 200, 100, None) is None


def test_a_random_window_is_the_box_that_the_transform_draws():
    crop = RandomResizedCrop(32)
    for index in range(20):
        window, steps = opening_window([crop, str], 200, 100, sample_generator(0, 0, index))
        top, left, height, width = crop.get_params(photo(200, 100), sample_generator(0, 0, index))
        assert steps == 1 and window.size == (32, 32)
        assert window.box == (left, top, left + width, top + height)


@pytest.mark.parametrize(
    ("box", "size", "needed"),
    [
        ((0, 0, 400, 300), (100, 100), (100, 100)),
        ((100, 100, 300, 200), (100, 100), (200, 300)),  # a part is needed at a higher scale; rows are not shrunk
        ((0, 0, 40, 30), (100, 100), (400, 300)),  # enlarged: everything is needed
        ((0, 0, 400, 300), (0, 1), (1, 1)),
    ],
)
def test_how_large_a_photo_is_needed(box, size, needed):
    assert Window(box, size, Image.Resampling.BILINEAR).needed(400, 300) == needed


def test_the_pixels_of_a_window():
    image = photo(200, 100)
    window, _ = opening_window([Resize(50), CenterCrop((40, 30))], 200, 100, None)
    expected = np.asarray(CenterCrop((40, 30))(Resize(50)(image))).astype(int)
    assert np.abs(np.asarray(window.of(image, 1.0, reduce=False)) - expected).max() <= 1
    # The same of a photo at half its size, whose last row is only partly there.
    half = image.reduce(2)
    assert np.abs(np.asarray(window.of(half, 0.5, reduce=False)) - expected).mean() < 3
    odd = Window((0.0, 0.0, 201.0, 101.0), (50, 25), Image.Resampling.BILINEAR)
    assert odd.of(photo(201, 101).reduce(2), 0.5, reduce=True).size == (50, 25)
