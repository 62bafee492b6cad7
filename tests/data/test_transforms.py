from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distgrad.data import sample_generator, transforms
from distgrad.errors import DataError


def noise_image(height, width, mode="RGB"):
    rng = np.random.default_rng(height * 1000 + width)
    bands = [Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)) for _ in mode]
    return Image.merge(mode, bands)


def published_resize_size(height, width, size):
    """torchvision.transforms.functional._compute_resized_output_size, restated."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    return new_height, new_width


def published_center_crop(pixels, height, width):
    """torchvision.transforms.functional.center_crop, restated on an array (H, W, C)."""
    rows, columns = pixels.shape[:2]
    if width > columns or height > rows:
        left = (width - columns) // 2 if width > columns else 0
        top = (height - rows) // 2 if height > rows else 0
        right = (width - columns + 1) // 2 if width > columns else 0
        bottom = (height - rows + 1) // 2 if height > rows else 0
        pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)))
        rows, columns = pixels.shape[:2]
        if (width, height) == (columns, rows):
            return pixels
    top = round((rows - height) / 2.0)
    left = round((columns - width) / 2.0)
    return pixels[top : top + height, left : left + width]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_resize_by_the_shorter_side(height, width, size):
    expected = published_resize_size(height, width, size)
    image = Image.new("RGB", (width, height))
    resized = transforms.Resize(size)(image)
    assert (resized.height, resized.width) == expected


def test_resize_rounds_the_longer_side_down():
    # 256 * 500 / 375 = 341.33; 256 * 1023 / 512 = 511.5
    assert transforms.Resize(256)(Image.new("L", (500, 375))).size == (341, 256)
    assert transforms.Resize(256)(Image.new("L", (512, 1023))).size == (256, 511)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"])
def test_resize_filters_are_pillows(name):
    image = noise_image(37, 53)
    expected = image.resize((30, 21), Image.Resampling[name.upper()])
    for interpolation in (name, transforms.InterpolationMode(name)):
        resized = transforms.Resize((21, 30), interpolation=interpolation)(image)
        assert resized.tobytes() == expected.tobytes()
    assert transforms.Resize((21, 30))(image).tobytes() == image.resize((30, 21), Image.Resampling.BILINEAR).tobytes()


def test_resize_to_the_same_size_returns_the_image():
    image = noise_image(20, 30)
    assert transforms.Resize(20)(image) is image
    assert transforms.Resize([20])(image) is image
    assert transforms.Resize((20, 30))(image) is image


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_center_crop(rows, columns, height, width):
    image = noise_image(rows, columns)
    cropped = transforms.CenterCrop((height, width))(image)
    np.testing.assert_array_equal(np.asarray(cropped), published_center_crop(np.asarray(image), height, width))


def test_center_crop_splits_an_odd_margin_to_even():
    columns = Image.fromarray(np.arange(8, dtype=np.uint8)[None].repeat(8, 0))
    # margins 5 and 3: round(2.5) = 2 and round(1.5) = 2
    assert np.asarray(transforms.CenterCrop(3)(columns))[0].tolist() == [2, 3, 4]
    assert np.asarray(transforms.CenterCrop(5)(columns))[0].tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_center_crop_pads_every_band_with_zeros(mode):
    padded = np.asarray(transforms.CenterCrop(9)(noise_image(4, 4, mode)))
    assert padded.shape[:2] == (9, 9)
    assert not padded[:2].any() and not padded[6:].any() and not padded[:, :2].any() and not padded[:, 6:].any()


@pytest.mark.parity
def test_to_tensor_and_normalize_equal_torch_to_the_last_bit():
    torch = pytest.importorskip("torch")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    # All 256 values in each channel.
    pixels = np.stack([np.arange(256), np.arange(256)[::-1], np.roll(np.arange(256), 7)], -1).astype(np.uint8)
    image = Image.fromarray(pixels.reshape(16, 16, 3))
    ours = transforms.ToTensor()(image)
    # torchvision.transforms.functional.to_tensor: view (H, W, C), permute, contiguous, to float32, div(255)
    theirs = torch.from_numpy(np.array(image, np.uint8)).view(16, 16, 3).permute(2, 0, 1).contiguous().to(torch.float32)
    theirs = theirs.div(255)
    assert ours.dtype == np.float32 and ours.flags.c_contiguous
    assert ours.tobytes() == theirs.numpy().tobytes()

    normalized = transforms.Normalize(mean, std)(ours)
    reference = theirs.clone()
    reference.sub_(torch.as_tensor(mean, dtype=torch.float32).view(-1, 1, 1))
    reference.div_(torch.as_tensor(std, dtype=torch.float32).view(-1, 1, 1))
    assert normalized.dtype == np.float32
    assert normalized.tobytes() == reference.numpy().tobytes()
    assert ours.tobytes() == theirs.numpy().tobytes(), "Normalize changed its input"


@pytest.mark.parity
def test_the_evaluation_pipeline_equals_torch_to_the_last_bit():
    torch = pytest.importorskip("torch")
    image = noise_image(311, 253)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ours = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(mean, std)]
    )(image)
    height, width = published_resize_size(311, 253, 256)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    theirs = (
        torch.from_numpy(published_center_crop(resized, 224, 224).copy()).permute(2, 0, 1).to(torch.float32).div(255)
    )
    theirs = theirs.sub(torch.tensor(mean)[:, None, None]).div(torch.tensor(std)[:, None, None])
    assert ours.shape == (3, 224, 224)
    assert ours.tobytes() == theirs.contiguous().numpy().tobytes()


def test_to_tensor_takes_grey_bilevel_and_alpha():
    assert transforms.ToTensor()(noise_image(3, 5, "L")).shape == (1, 3, 5)
    assert transforms.ToTensor()(noise_image(3, 5, "RGBA")).shape == (4, 3, 5)
    bilevel = Image.new("1", (4, 2), 1)
    bilevel.putpixel((0, 0), 0)
    assert transforms.ToTensor()(bilevel).tolist() == [[[0, 1, 1, 1], [1, 1, 1, 1]]]
    array = np.array([[0, 51], [102, 255]], np.uint8)
    np.testing.assert_array_equal(transforms.ToTensor()(array), np.float32([[[0, 0.2], [0.4, 1]]]))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (Image.new("I;16", (2, 2)), TypeError, r'mode I;16; use image.convert\("RGB"\)'),
        (Image.new("F", (2, 2)), TypeError, "mode F"),
        (np.zeros((2, 2), np.float32), TypeError, r"bytes \(uint8\), got an array of float32"),
        (np.zeros((1, 2, 2, 3), np.uint8), ValueError, r"\(1, 2, 2, 3\)"),
        ([[1]], TypeError, "got list"),
    ],
)
def test_to_tensor_refuses(image, error, message):
    with pytest.raises(error, match=message):
        transforms.ToTensor()(image)


def test_normalize_keeps_float64_and_refuses_what_does_not_fit():
    image = np.random.default_rng(0).random((2, 3, 4, 5))
    normalized = transforms.Normalize([0.1, 0.2, 0.3], [1, 2, 3])(image)
    np.testing.assert_array_equal(
        normalized, (image - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array([1.0, 2, 3])[:, None, None]
    )
    with pytest.raises(ValueError, match="2 means for 3 channels"):
        transforms.Normalize([0, 0], [1, 1])(image)
    with pytest.raises(ValueError, match="zero in float32"):
        transforms.Normalize([0], [1e-60])(image.astype(np.float32))
    with pytest.raises(TypeError, match="uint8; place it after ToTensor"):
        transforms.Normalize([0], [1])(np.zeros((3, 2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        transforms.Normalize([0], [1])(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="one value a channel each"):
        transforms.Normalize([0, 0], [1])


class ScriptedGenerator:
    """Stands in for a generator: hands out the uniform draws it was given and remembers what was asked."""

    def __init__(self, uniforms, integers=()):
        self.uniforms, self.integer_draws, self.bounds = iter(uniforms), iter(integers), []

    def uniform(self, low, high):
        self.bounds.append((low, high))
        return low + (high - low) * next(self.uniforms)

    def integers(self, low, high):
        self.bounds.append((low, high))
        return next(self.integer_draws)


def test_random_resized_crop_follows_the_published_algorithm():
    crop = transforms.RandomResizedCrop(32)
    image = Image.new("RGB", (200, 100))
    rng = ScriptedGenerator([0.25, 0.75], [3, 11])
    area = 20000 * (0.08 + 0.92 * 0.25)
    log_low, log_high = math.log(3 / 4), math.log(4 / 3)
    aspect = math.exp(log_low + (log_high - log_low) * 0.75)
    width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    assert crop.get_params(image, rng) == (3, 11, height, width)
    assert rng.bounds[2:] == [(0, 100 - height + 1), (0, 200 - width + 1)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 10), (0, (1000 - 13) // 2, 10, 13)),  # wide: round(10 * 4/3)
        ((10, 1000), ((1000 - 13) // 2, 0, 13, 10)),  # tall: round(10 / (3/4))
    ],
)
def test_random_resized_crop_falls_back_to_the_centre(size, expected):
    crop = transforms.RandomResizedCrop(32, scale=(1.0, 1.0))
    rng = ScriptedGenerator([0.5] * 20)
    assert crop.get_params(Image.new("RGB", size), rng) == expected
    assert len(rng.bounds) == 20, "ten tries of two draws each"


def test_random_resized_crop_falls_back_to_the_whole_image():
    rng = ScriptedGenerator([0.5] * 20)
    crop = transforms.RandomResizedCrop(32, scale=(4.0, 4.0))
    assert crop.get_params(Image.new("RGB", (40, 50)), rng) == (0, 0, 50, 40)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_random_resized_crop_stays_inside(height, width, index):
    crop = transforms.RandomResizedCrop((5, 7))
    image = Image.new("L", (width, height))
    top, left, box_height, box_width = crop.get_params(image, sample_generator(1, 2, index))
    assert top >= 0 and left >= 0 and box_height >= 1 and box_width >= 1
    assert top + box_height <= height and left + box_width <= width
    assert crop(image, sample_generator(1, 2, index)).size == (7, 5)


def test_random_resized_crop_cuts_and_resizes_the_box_it_drew():
    crop, image = transforms.RandomResizedCrop(16, interpolation="bicubic"), noise_image(60, 80)
    top, left, height, width = crop.get_params(image, sample_generator(0, 0, 5))
    expected = image.crop((left, top, left + width, top + height)).resize((16, 16), Image.Resampling.BICUBIC)
    assert crop(image, sample_generator(0, 0, 5)).tobytes() == expected.tobytes()


def test_flip_mirrors_with_probability_p():
    image = noise_image(4, 6)
    mirrored = np.asarray(image)[:, ::-1]
    flips = 0
    for index in range(400):
        result = np.asarray(transforms.RandomHorizontalFlip(0.25)(image, sample_generator(0, 0, index)))
        flipped = np.array_equal(result, mirrored)
        assert flipped or np.array_equal(result, np.asarray(image))
        flips += flipped
    assert abs(flips - 100) < 5 * math.sqrt(400 * 0.25 * 0.75)
    rng = sample_generator(0, 0, 0)
    assert transforms.RandomHorizontalFlip(0)(image, rng) is image
    assert np.array_equal(np.asarray(transforms.RandomHorizontalFlip(1)(image, rng)), mirrored)


def test_compose_hands_the_generator_to_those_that_name_it():
    seen = []

    def plain(image):
        return image + 1

    def drawing(image, *, rng):
        seen.append(rng)
        return image * 2

    rng = sample_generator(0, 0, 0)
    pipeline = transforms.Compose([plain, drawing, transforms.Compose([drawing, abs])])
    assert pipeline(-4, rng) == 12 and seen == [rng, rng]
    assert transforms.Compose([])("image") == "image"


@pytest.mark.parametrize("transform", [transforms.RandomResizedCrop(8), transforms.RandomHorizontalFlip()])
def test_random_transforms_need_a_generator(transform):
    with pytest.raises(TypeError, match=r"draws random numbers: call it as transform\(image, rng\)"):
        transform(noise_image(9, 9))
    with pytest.raises(TypeError, match="takes a PIL image, got ndarray; place it before ToTensor"):
        transform(np.zeros((3, 9, 9), np.float32), sample_generator(0, 0, 0))


def test_a_resize_that_would_make_a_bomb_is_refused():
    with pytest.raises(DataError, match=r"1 x 50000 pixels would be resized to 256 x 12800000"):
        transforms.Resize(256)(Image.new("L", (1, 50000)))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: transforms.Resize(0), ValueError, "Resize: size must be at least 1 pixel, got 0"),
        (lambda: transforms.Resize("224"), TypeError, "Resize: size must be an int or a sequence"),
        (lambda: transforms.Resize(224.0), TypeError, "224.0"),
        (lambda: transforms.Resize((1, 2, 3)), ValueError, "one or two values, got 3"),
        (lambda: transforms.Resize(8, "cubic"), ValueError, "nearest, bilinear, bicubic, .* got 'cubic'"),
        (lambda: transforms.CenterCrop((3, -1)), ValueError, "CenterCrop: size"),
        (
            lambda: transforms.RandomResizedCrop(8, scale=(1, 0.5)),
            ValueError,
            r"scale .*0 < min <= max, got \(1, 0.5\)",
        ),
        (lambda: transforms.RandomResizedCrop(8, ratio=(0, 1)), ValueError, "RandomResizedCrop: ratio"),
        (lambda: transforms.RandomHorizontalFlip(1.5), ValueError, "p must be a probability from 0 to 1, got 1.5"),
        (lambda: transforms.Compose([3]), TypeError, "Compose takes callables, got 3"),
    ],
)
def test_impossible_arguments(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_repr_names_every_parameter():
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.Resize(256, "bicubic"),
            transforms.CenterCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.25]),
        ]
    )
    assert repr(pipeline).splitlines() == [
        "Compose(",
        "    RandomResizedCrop(size=(224, 224), scale=(0.08, 1.0), ratio=(0.75, 1.3333), interpolation=bilinear)",
        "    Resize(size=256, interpolation=bicubic)",
        "    CenterCrop(size=(224, 224))",
        "    RandomHorizontalFlip(p=0.5)",
        "    ToTensor()",
        "    Normalize(mean=(0.5,), std=(0.25,))",
        ")",
    ]
