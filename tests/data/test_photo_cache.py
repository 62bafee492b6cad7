"""Decoded photos on disk: found by content and settings, never out of date, never half written."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from distgrad.data import DataLoader, ImageFolder, PhotoCache, sample_generator
from distgrad.data.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)
from distgrad.errors import DataError

from .photos import jpeg

FINAL = Compose([Resize(24), CenterCrop(20), ToTensor(), Normalize([0.5], [0.25])])


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "photos" / name / f"{number}.jpg").write_bytes(jpeg(50, 40, number + 3 * (name == "b")))
    return tmp_path / "photos"


def pixels(seed=0, shape=(5, 7, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def entries(cache):
    return sorted(path for path in cache.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 1, 3), (224, 224, 3), (300, 1, 1), (0, 4, 3)])
def test_what_is_put_is_got(tmp_path, shape):
    cache = PhotoCache(tmp_path / "made" / "here")
    key = cache.key(b"content", "settings")
    assert cache.get(key) is None
    photo = pixels(shape=shape)
    cache.put(key, photo[:, ::-1])
    found = PhotoCache(cache.folder).get(key)
    assert found.dtype == np.uint8 and found.shape == shape
    np.testing.assert_array_equal(found, photo[:, ::-1])
    assert (cache.hits, cache.misses) == (0, 1)


def test_keys_tell_content_and_settings_apart(tmp_path):
    cache = PhotoCache(tmp_path)
    pairs = [(b"ab", "c"), (b"a", "bc"), (b"abc", ""), (b"ab", "d"), (b"aB", "c")]
    assert len({cache.key(*pair) for pair in pairs}) == len(pairs)
    assert cache.key(b"ab", "c") == PhotoCache(tmp_path / "other").key(b"ab", "c")


def test_every_damage_is_noticed_and_mended(tmp_path):
    cache = PhotoCache(tmp_path)
    key = cache.key(b"x", "")
    cache.put(key, pixels())
    (path,) = entries(cache)
    whole = path.read_bytes()
    damaged = [
        whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :] for position in range(len(whole))
    ]
    damaged += [whole[:length] for length in range(len(whole))]
    for number, content in enumerate(damaged, 1):
        path.write_bytes(content)
        assert cache.get(key) is None
        assert cache.spoilt == cache.misses == number
    cache.put(key, pixels())
    np.testing.assert_array_equal(cache.get(key), pixels())


def test_writers_at_the_same_time(tmp_path):
    caches = [PhotoCache(tmp_path) for _ in range(4)]
    keys = [caches[0].key(bytes([number]), "") for number in range(20)]
    wrong = []

    def work(cache, order):
        for number in order:
            found = cache.get(keys[number])
            if found is not None and not np.array_equal(found, pixels(number)):
                wrong.append(number)
            cache.put(keys[number], pixels(number))

    orders = [np.random.default_rng(seed).permutation(20).tolist() for seed in range(8)]
    threads = [threading.Thread(target=work, args=(caches[i % 4], order)) for i, order in enumerate(orders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and all(cache.spoilt == 0 for cache in caches)
    assert len(entries(caches[0])) == 20, "nothing unfinished is left"


def test_a_writer_that_dies_leaves_nothing_that_counts(tmp_path, monkeypatch):
    cache = PhotoCache(tmp_path)
    key = cache.key(b"x", "")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        cache.put(key, pixels())
    assert cache.get(key) is None and entries(cache) == []
    # One that could not clean up is cleaned up after a day.
    old, young = cache.folder / key[:2] / ".unfinished-old", cache.folder / key[:2] / ".unfinished-young"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (time.time() - 1e5,) * 2)
    PhotoCache(tmp_path)
    assert entries(cache) == [young]


def test_a_full_disk_stops_the_keeping_and_not_the_training(tmp_path, monkeypatch):
    cache = PhotoCache(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match=r"takes no more entries \(No space left on device\).*Make room there"):
        cache.put(cache.key(b"x", ""), pixels())
    cache.put(cache.key(b"y", ""), pixels())  # silent from now on
    assert entries(cache) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"the photo cache '.*file/cache' cannot be made \(Not a directory\)"):
        PhotoCache(tmp_path / "file" / "cache")


def test_a_folder_of_photos_with_a_cache_has_the_same_bits(folder, tmp_path, monkeypatch):
    plain = [image for image, _ in DataLoader(ImageFolder(folder, FINAL), 4)]
    cached = ImageFolder(folder, FINAL, photo_cache=tmp_path / "cache")
    for epoch in range(2):
        for image, expected in zip((image for image, _ in DataLoader(cached, 4, num_workers=2)), plain, strict=True):
            np.testing.assert_array_equal(image.numpy(), expected.numpy())
        assert (cached.photo_cache.hits, cached.photo_cache.misses) == (6 * epoch, 6)
    assert {path.stat().st_size for path in entries(cached.photo_cache)} == {20 * 20 * 3 + 28}
    # A later run decodes nothing.
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    again = ImageFolder(folder, FINAL, photo_cache=tmp_path / "cache")
    np.testing.assert_array_equal(again[1][0], plain[0].numpy()[1])


def test_a_replaced_file_and_other_settings_are_other_entries(folder, tmp_path):
    cache = PhotoCache(tmp_path / "cache")
    before = ImageFolder(folder, FINAL, photo_cache=cache)[0][0]
    path = folder / "a" / "0.jpg"
    status = path.stat()
    other = jpeg(50, 40, 99)
    path.write_bytes(other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    dataset = ImageFolder(folder, FINAL, photo_cache=cache)
    assert not np.array_equal(dataset[0][0], before)
    np.testing.assert_array_equal(dataset[0][0], ImageFolder(folder, FINAL)[0][0])
    assert len(entries(cache)) == 2
    variants = [
        ImageFolder(folder, FINAL, photo_cache=cache, decode="fast"),
        ImageFolder(folder, FINAL, photo_cache=cache, exif_orientation=True),
        ImageFolder(folder, Compose([Resize(25), CenterCrop(20), ToTensor()]), photo_cache=cache),
        ImageFolder(folder, Compose([Resize(24, "bicubic"), CenterCrop(20), ToTensor()]), photo_cache=cache),
    ]
    for number, variant in enumerate(variants, 3):
        variant[0]
        assert len(entries(cache)) == number
    # What comes after has no part in it.
    ImageFolder(folder, Compose([Resize(24), CenterCrop(20), ToTensor()]), photo_cache=cache)[0]
    assert len(entries(cache)) == 6


def test_augmentation_starts_from_what_is_kept(folder, tmp_path):
    steps = [Resize(30), RandomResizedCrop(20), RandomHorizontalFlip(), ToTensor()]
    plain, cached = ImageFolder(folder, Compose(steps)), ImageFolder(folder, Compose(steps), photo_cache=tmp_path / "c")
    for epoch in range(3):
        for index in range(6):
            rng = [sample_generator(1, epoch, index) for _ in range(2)]
            np.testing.assert_array_equal(cached.get(index, rng[0])[0], plain.get(index, rng[1])[0])
    assert (cached.photo_cache.hits, cached.photo_cache.misses) == (12, 6)
    # One that begins with a random step keeps nothing.
    random = ImageFolder(folder, Compose(steps[1:]), photo_cache=tmp_path / "r")
    random[0]
    assert entries(random.photo_cache) == []


def test_images_come_out_of_the_cache_as_images(folder, tmp_path):
    dataset = ImageFolder(folder, Compose([Resize(24), CenterCrop(20)]), photo_cache=tmp_path / "c")
    for _ in range(2):
        image, _ = dataset[0]
        assert isinstance(image, Image.Image) and image.mode == "RGB" and image.size == (20, 20)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(ImageFolder(folder, dataset.transform)[0][0]))


def test_errors_are_those_without_a_cache(folder, tmp_path):
    (folder / "a" / "0.jpg").write_bytes(jpeg(50, 40)[:400])
    (folder / "a" / "1.jpg").unlink()
    (folder / "a" / "1.jpg").symlink_to("nowhere")
    for index in range(2):
        said = []
        for cache in (None, tmp_path / "cache"):
            with pytest.raises(DataError) as caught:
                ImageFolder(folder, FINAL, photo_cache=cache)[index]
            said.append(str(caught.value))
        assert said[0] == said[1] and 'set on_error="skip"' in said[0]
    with pytest.raises(DataError, match="more than the limit max_pixels"):
        ImageFolder(folder, FINAL, photo_cache=tmp_path / "cache", max_pixels=10)[2]
    bomb = Compose([Resize((20000, 20000)), ToTensor()])
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(DataError, match=r"2\.jpg' cannot be transformed: an image of 50 x 40 pixels would be"):
            ImageFolder(folder, bomb, photo_cache=cache)[2]
