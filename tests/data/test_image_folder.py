from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgrad.data import ImageFolder, decode, load_image, sample_generator, transforms
from distgrad.errors import DataError


def photo(size=(20, 14), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (photo() if image is None else image).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        for number in range(3):
            save(tmp_path / name / f"{number}.png", photo(seed=number))
    return tmp_path


def png_header(width, height, bits=1, colour=0):
    """A PNG file that promises width x height pixels and holds next to none."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    idat = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


# ---- what is found


def test_classes_samples_and_targets(tmp_path):
    for name in ("zebra/b.JPG", "zebra/a.jpeg", "ant/x.PNG", "ant/deep/er/y.webp", "ant/deep/a.bmp", "Bee/1.Jpeg"):
        save(tmp_path / name)
    for name in ("ant/notes.txt", "ant/.hidden.jpg", "ant/x.jpg.part", "ant/.cache/z.jpg", ".git/a.jpg", "loose.jpg"):
        save(tmp_path / name, format="PNG")
    dataset = ImageFolder(tmp_path)
    assert dataset.classes == ["Bee", "ant", "zebra"]
    assert dataset.class_to_idx == {"Bee": 0, "ant": 1, "zebra": 2}
    found = [(Path(path).relative_to(tmp_path).as_posix(), target) for path, target in dataset.samples]
    assert found == [
        ("Bee/1.Jpeg", 0),
        ("ant/x.PNG", 1),
        ("ant/deep/a.bmp", 1),
        ("ant/deep/er/y.webp", 1),
        ("zebra/a.jpeg", 2),
        ("zebra/b.JPG", 2),
    ]
    assert dataset.targets == [0, 1, 1, 1, 2, 2] and len(dataset) == 6
    assert repr(dataset) == f"ImageFolder({str(tmp_path)!r}: 6 images of 3 classes)"


def test_linked_folders_are_followed_once(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "linked.png")
    (folder / "cat" / "more").symlink_to(elsewhere, target_is_directory=True)
    (folder / "cat" / "loop").symlink_to(folder / "cat", target_is_directory=True)
    (folder / "eel").symlink_to(elsewhere, target_is_directory=True)
    dataset = ImageFolder(folder)
    names = [os.path.relpath(path, folder) for path, _ in dataset.samples]
    cats, dogs = [f"cat/{number}.png" for number in range(3)], [f"dog/{number}.png" for number in range(3)]
    assert names == [*cats, "cat/more/linked.png", *dogs, "eel/linked.png"]


def test_home_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert len(ImageFolder("~")) == 6


def test_items_go_through_the_transform(folder):
    plain = ImageFolder(folder)
    image, target = plain[4]
    assert image.mode == "RGB" and target == 1
    np.testing.assert_array_equal(np.asarray(image), np.asarray(photo(seed=1)))
    assert plain[-1][1] == 1
    with pytest.raises(IndexError):
        plain[6]

    seen = {}

    def transform(image, rng):
        seen["draw"] = rng.random()
        return np.asarray(image)

    dataset = ImageFolder(folder, transform)
    dataset.get(2, sample_generator(1, 2, 3))
    assert seen["draw"] == sample_generator(1, 2, 3).random()
    dataset[-1]
    assert seen["draw"] == sample_generator(0, 0, 5).random(), "an index alone is augmented repeatably"
    dataset.transform = lambda image: image.size
    assert dataset[0] == ((20, 14), 0)


def test_given_classes_fix_the_indices(folder):
    save(folder / "ant" / "0.png")
    dataset = ImageFolder(folder, classes=["dog", "bear", "cat", "ant"])
    assert dataset.targets == [0, 0, 0, 2, 2, 2, 3]
    assert dataset.class_to_idx["bear"] == 1
    with pytest.raises(DataError, match=r"not among the 2 expected classes: 'ant'\. Expected 'cat', 'dog'"):
        ImageFolder(folder, classes=["cat", "dog"])
    with pytest.raises(ValueError, match="names one twice"):
        ImageFolder(folder, classes=["cat", "dog", "cat", "ant"])


# ---- decoding


def reference_rgb(path):
    """What torchvision's loader does: open, convert."""
    with warnings.catch_warnings(), open(path, "rb") as file:
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(file).convert("RGB"))


def palette_image(transparency=None):
    image = photo().quantize(16)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


SIXTEEN_BIT = Image.fromarray(np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16))
VARIANTS = {
    "rgb.jpg": (photo(), {"quality": 90}),
    "progressive.jpeg": (photo((64, 48)), {"progressive": True}),
    "rgb.png": (photo(), {}),
    "rgb.bmp": (photo(), {}),
    "rgb.webp": (photo(), {"lossless": True}),
    "lossy.webp": (photo(), {}),
    "grey.jpg": (photo().convert("L"), {}),
    "grey.png": (photo().convert("L"), {}),
    "grey.bmp": (photo().convert("L"), {}),
    "grey_alpha.png": (photo().convert("LA"), {}),
    "bilevel.png": (photo().convert("1"), {}),
    "bilevel.bmp": (photo().convert("1"), {}),
    "palette.png": (palette_image(), {}),
    "palette.bmp": (palette_image(), {}),
    "palette_one_transparent.png": (palette_image(3), {}),
    "palette_alpha.png": (palette_image(bytes(range(0, 256, 16))), {}),
    "cmyk.jpg": (photo().convert("CMYK"), {}),
    "alpha.png": (Image.merge("RGBA", [*photo().split(), photo(seed=1).convert("L")]), {}),
    "alpha.webp": (Image.merge("RGBA", [*photo().split(), photo(seed=1).convert("L")]), {"lossless": True}),
    "sixteen_bit.png": (SIXTEEN_BIT, {}),
    "grey_transparent.png": (photo().convert("L"), {"transparency": 5}),
    "animated.webp": (photo(), {"save_all": True, "append_images": [photo(seed=2)], "lossless": True}),
    "named_wrongly.jpg": (photo(), {"format": "PNG"}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_image_becomes_rgb_as_in_torchvision(folder, name):
    image, options = VARIANTS[name]
    path = save(folder / "cat" / "sub" / name, image, **options)
    dataset = ImageFolder(folder)
    decoded = dataset[[path for path, _ in dataset.samples].index(str(path))][0]
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), reference_rgb(path))


def test_lossless_pixels_are_exact(folder):
    rgba = VARIANTS["alpha.png"][0]
    path = save(folder / "a.png", rgba)
    np.testing.assert_array_equal(np.asarray(load_image(path)), np.asarray(rgba)[..., :3])
    path = save(folder / "g.png", photo().convert("L"))
    np.testing.assert_array_equal(
        np.asarray(load_image(path)), np.asarray(photo().convert("L"))[..., None].repeat(3, 2)
    )
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = np.asarray(load_image(save(folder / "c.jpg", cmyk, quality=100)))
    assert (red[..., 0] > 250).all() and (red[..., 1:] < 5).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_exif_orientation_is_an_option(folder, orientation, kind):
    upright = photo((24, 16))
    # How the camera would have stored it: the inverse of the turn that the tag asks for.
    stored = {
        1: lambda image: image,
        2: lambda image: image[:, ::-1],
        3: lambda image: image[::-1, ::-1],
        4: lambda image: image[::-1],
        5: lambda image: image.transpose(1, 0, 2),
        6: lambda image: np.rot90(image, 1),
        7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
        8: lambda image: np.rot90(image, -1),
    }[orientation](np.asarray(upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "png": {}, "webp": {"lossless": True, "exact": True}}[kind]
    path = save(folder / "cat" / f"turned.{kind}", Image.fromarray(np.ascontiguousarray(stored)), exif=exif, **options)
    as_stored = np.asarray(load_image(path)).astype(int)
    turned = np.asarray(load_image(path, exif_orientation=True)).astype(int)
    tolerance = 16 if kind == "jpg" else 0
    assert as_stored.shape == stored.shape and abs(as_stored - stored).max() <= tolerance
    position = [sample for sample, _ in ImageFolder(folder).samples].index(str(path))
    for option, expected in ((False, as_stored), (True, turned)):
        np.testing.assert_array_equal(ImageFolder(folder, np.asarray, exif_orientation=option)[position][0], expected)
    assert turned.shape == (16, 24, 3) and abs(turned - np.asarray(upright)).max() <= tolerance


# ---- what is refused


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match=r"no such folder: '.*nowhere'\. Give the folder that holds one subfolder"):
        ImageFolder(tmp_path / "nowhere")


def test_not_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"photo.png' is not a folder"):
        ImageFolder(save(tmp_path / "photo.png"))


def test_no_classes(tmp_path):
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(DataError, match="has no class folders, and no photos: put the photos of each class"):
        ImageFolder(tmp_path)
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    with pytest.raises(DataError, match="has no class folders, but 2 photos directly in it"):
        ImageFolder(tmp_path)


def test_empty_classes_are_listed(folder):
    (folder / "bird").mkdir()
    (folder / "bird" / "readme.txt").write_text("none yet")
    (folder / "fish" / ".jpg").mkdir(parents=True)
    with pytest.raises(
        DataError,
        match=r"2 class folders without a photo: 'bird', 'fish'\. Looked for files that end in "
        r"\.bmp, \.jpeg, \.jpg, \.png, \.webp; add some or remove the folder",
    ):
        ImageFolder(folder)


def test_one_class_is_not_enough(tmp_path):
    save(tmp_path / "only" / "a.png")
    with pytest.raises(DataError, match=r"too few classes, 1 \('only'\): a classifier needs at least 2\. Add a folder"):
        ImageFolder(tmp_path)
    assert ImageFolder(tmp_path, require_classes=1).classes == ["only"]


def test_a_folder_that_cannot_be_listed(folder, monkeypatch):
    scandir = os.scandir

    def guarded(path):
        if os.fspath(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(DataError, match=r"folder '.*dog' cannot be listed: Permission denied"):
        ImageFolder(folder)


@pytest.mark.parametrize("options", [{"on_error": "ignore"}, {"max_pixels": 0}])
def test_impossible_options(folder, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ImageFolder(folder, **options)


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return len(data) // 2


@pytest.mark.parametrize("name", ["half.jpg", "half.png", "half.webp", "half.bmp"])
def test_a_truncated_file_is_named_with_its_size(folder, name):
    path = save(folder / "cat" / name, photo((64, 64)))
    size = truncate(path)
    dataset = ImageFolder(folder)
    index = [path for path, _ in dataset.samples].index(str(path))
    with pytest.raises(
        DataError,
        match=rf"'{path}' \({size} bytes\) is truncated or damaged and cannot be decoded \(.+\): "
        "replace it, or set on_error",
    ):
        dataset[index]


def test_a_text_file_named_jpg(folder):
    path = folder / "cat" / "notes.jpg"
    path.write_text("hello world, I am text")
    dataset = ImageFolder(folder)
    with pytest.raises(
        DataError,
        match=rf"'{path}' \(22 bytes\) is not a JPEG, PNG, WebP or BMP image, it begins with b'hello world, I a': "
        r'replace it, or set on_error="skip" to leave such files out',
    ):
        dataset[3]


def test_another_format_named_jpg_is_not_tried(folder):
    save(folder / "cat" / "gif.jpg", format="GIF")
    with pytest.raises(DataError, match="is not a JPEG, PNG, WebP or BMP image, it begins with b'GIF8"):
        ImageFolder(folder)[3]


def test_an_empty_file(folder):
    (folder / "cat" / "nothing.png").touch()
    with pytest.raises(DataError, match=r"nothing.png' is empty \(0 bytes\): replace it"):
        ImageFolder(folder)[3]


def test_a_file_that_cannot_be_opened(folder, monkeypatch):
    dataset = ImageFolder(folder)

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(decode, "open", refuse, raising=False)
    with pytest.raises(DataError, match=r"0.png' cannot be opened \(Permission denied\): replace it"):
        dataset[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission(folder):
    (folder / "cat" / "0.png").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        ImageFolder(folder)[0]


def test_a_file_that_vanished(folder):
    dataset = ImageFolder(folder)
    (folder / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match=r"0.png' cannot be opened \(No such file or directory\)"):
        dataset[0]


def test_a_decompression_bomb_is_refused_on_its_header(folder, monkeypatch):
    path = folder / "cat" / "huge.png"
    path.write_bytes(png_header(50_000, 50_000))
    dataset = ImageFolder(folder)

    def decode(self):
        raise AssertionError("the bomb was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(
        DataError,
        match=r"huge.png' has 50000 x 50000 = 2500000000 pixels, more than the limit max_pixels = 178956970, and was "
        "not decoded: scale the file down or raise max_pixels",
    ):
        dataset[3]


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp"])
def test_max_pixels_is_the_only_limit(folder, kind, monkeypatch):
    path = save(folder / "cat" / f"photo.{kind}", photo((30, 40)))
    assert load_image(path, max_pixels=1200).size == (30, 40)
    with pytest.raises(DataError, match=r"30 x 40 = 1200 pixels, more than the limit max_pixels = 1199"):
        load_image(path, max_pixels=1199)
    position = [sample for sample, _ in ImageFolder(folder).samples].index(str(path))
    with pytest.raises(DataError, match=r'max_pixels = 1199.* or set on_error="skip" to leave such files out'):
        ImageFolder(folder, max_pixels=1199)[position]
    if kind != "webp":  # Pillow's WebP reader looks at the process-wide limit itself
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert load_image(path).size == (30, 40)


def test_whatever_the_damage_it_is_a_data_error(folder):
    originals = []
    for kind in ("jpg", "png", "webp", "bmp"):
        buffer = io.BytesIO()
        photo((24, 24)).save(buffer, {"jpg": "jpeg"}.get(kind, kind))
        originals.append((kind, buffer.getvalue()))
    rng = np.random.default_rng(0)
    outcomes = {"decoded": 0, "refused": 0}
    for kind, data in originals:
        path = folder / f"damaged.{kind}"
        for _ in range(150):
            damaged = np.frombuffer(data, np.uint8).copy()
            places = rng.integers(0, min(len(damaged), rng.choice([40, 10**6])), rng.integers(1, 4))
            damaged[places] = rng.integers(0, 256, len(places))
            end = rng.integers(1, len(damaged)) if rng.random() < 0.3 else len(damaged)
            path.write_bytes(damaged.tobytes()[:end])
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert load_image(path).mode == "RGB"
                outcomes["decoded"] += 1
            except DataError as error:
                assert str(path) in str(error)
                outcomes["refused"] += 1
    assert outcomes["refused"] > 100 and outcomes["decoded"] > 20


def test_a_transform_that_refuses_names_the_file(folder):
    path = save(folder / "cat" / "thin.png", Image.new("L", (1, 50_000)))
    dataset = ImageFolder(folder, transforms.Compose([transforms.Resize(256)]))
    with pytest.raises(DataError, match=rf"'{path}' cannot be transformed: .*256 x 12800000"):
        dataset[3]


# ---- skipping


@pytest.fixture
def broken_folder(folder):
    (folder / "cat" / "1.png").write_text("text")
    truncate(save(folder / "dog" / "0.jpg", photo((64, 64))))
    (folder / "dog" / "huge.png").write_bytes(png_header(50_000, 50_000))
    return folder


def test_scan_finds_the_same_files_on_any_number_of_ranks(broken_folder):
    dataset = ImageFolder(broken_folder)
    assert len(dataset) == 8
    everything = dataset.scan()
    assert list(everything) == [1, 3, 7]
    assert "is not a JPEG" in everything[1] and "truncated" in everything[3] and "50000 x 50000" in everything[7]
    for ranks in (1, 2, 3, 10):
        gathered = {}
        for rank in range(ranks):
            gathered |= dataset.scan(range(rank, len(dataset), ranks), num_workers=1 + rank % 3)
        assert gathered == everything
    with pytest.raises(ValueError, match="num_workers must be at least 1"):
        dataset.scan(num_workers=0)


def test_drop_takes_them_out_and_counts_them(broken_folder):
    dataset = ImageFolder(broken_folder)
    before = list(dataset.samples)
    dataset.drop(dataset.scan())
    assert dataset.dropped == [before[1], before[3], before[7]]
    assert dataset.samples == [before[index] for index in (0, 2, 4, 5, 6)]
    assert dataset.targets == [0, 0, 1, 1, 1] and len(dataset) == 5
    assert "5 images of 2 classes, 3 dropped" in repr(dataset)
    assert dataset.scan() == {}
    with pytest.raises(IndexError):
        dataset.drop([5])


def test_on_error_skip_drops_before_training_and_raises_later(broken_folder):
    dataset = ImageFolder(broken_folder, on_error="skip")
    assert len(dataset) == 5 and len(dataset.dropped) == 3
    Path(dataset.samples[0][0]).write_text("broke since")
    with pytest.raises(DataError, match="is not a JPEG"):
        dataset[0]


def test_a_class_must_keep_a_photo(folder):
    for number in range(3):
        (folder / "dog" / f"{number}.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"3 of 6 files are broken, so no photo of 'dog' is left; the first is '.*dog/0"
    ):
        ImageFolder(folder, on_error="skip")


# ---- real photos

ASSETS = Path(os.environ.get("DISTGRAD_ASSETS", Path(__file__).resolve().parents[3] / "shared" / "assets"))
IMAGENETTE = ASSETS / "datasets" / "imagenette"


@pytest.mark.assets
@pytest.mark.skipif(not IMAGENETTE.is_dir(), reason="no imagenette under DISTGRAD_ASSETS")
def test_real_photos():
    pipeline = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    dataset = ImageFolder(IMAGENETTE / "val", pipeline)
    assert len(dataset.classes) == 10 and len(dataset) == 1000
    assert dataset.classes == ImageFolder(IMAGENETTE / "train").classes
    for index in range(0, 1000, 125):
        image, target = dataset[index]
        assert image.shape == (3, 224, 224) and image.dtype == np.float32
        assert np.isfinite(image).all() and abs(image).max() < 3 and image.std() > 0.1
        assert dataset.classes[target] in dataset.samples[index][0]
    assert dataset.scan(range(0, 1000, 50)) == {}
