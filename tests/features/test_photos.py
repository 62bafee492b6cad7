"""Features of photos: the same bits whoever computes them, kept or not; computed once; again only when they must."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgrad import Tensor
from distgrad.data import DataLoader, GlobalBatchSampler, ImageFolder, transforms
from distgrad.distributed import Communicator, SingleCommunicator, communicator, threads
from distgrad.errors import DataError
from distgrad.features import BLOCK, FeatureLoader, FeatureStore, PhotoFeatures
from distgrad.features.blocks import pack

SIDE = 8
FIXED = transforms.Compose([transforms.Resize(SIDE), transforms.CenterCrop(SIDE), transforms.ToTensor()])
RANDOM = transforms.Compose([transforms.RandomResizedCrop(SIDE), transforms.ToTensor()])


class Counting:
    """A split whose features are products of the pixels and of the place, and which counts the photos that it sees.

    Where photos have fixed places the features may depend on them; otherwise they must not.
    """

    feature_shape = (6,)

    def __init__(self, fixed_places: bool = True) -> None:
        self.fixed_places = fixed_places
        self.weight = np.random.default_rng(0).standard_normal((3 * SIDE * SIDE, 6)).astype(np.float32)
        self.seen = 0
        self._lock = threading.Lock()

    def features(self, images: Tensor) -> Tensor:
        pixels = images.numpy().reshape(len(images), -1)
        assert len(images) == BLOCK, "always the same block"
        with self._lock:
            self.seen += int(pixels.any(axis=1).sum())
        values = np.stack([(row[None] * self.weight.T).sum(1) for row in pixels])
        return Tensor(values * np.linspace(1, 2, BLOCK, dtype=np.float32)[:, None] if self.fixed_places else values)

    def head(self, features: Tensor) -> Tensor:
        return features


def write(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(1, 255, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """75 photos of three classes: more than two blocks."""
    for number in range(75):
        write(tmp_path / "photos" / "abc"[number % 3] / f"{number:03d}.png", number)
    return tmp_path / "photos"


def features_of(
    folder: Path,
    split: Counting,
    store: FeatureStore | None,
    views: int | None = None,
    ranks: Communicator | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> PhotoFeatures:
    photos = ImageFolder(folder, FIXED if views is None else RANDOM)
    ranks = SingleCommunicator() if ranks is None else ranks
    return PhotoFeatures(
        photos,
        split,
        ranks,
        store=store,
        views=views,
        dtype=dtype,
        seed=seed,
        workers=2,
        fixed_places=split.fixed_places,
    )


def fill(features: PhotoFeatures, epoch: int = 0, indices: Sequence[int] | None = None) -> int:
    """Computes what is missing; how much that was."""
    wanted = range(len(features.photos)) if indices is None else indices
    missing = features.missing(wanted, epoch)
    features.compute(missing, wanted, epoch)
    return len(missing)


def all_of(features: PhotoFeatures, epoch: int = 0) -> np.ndarray:
    [(values, labels)] = features.batches([range(len(features.photos))], epoch)
    assert labels.tolist() == features.photos.targets
    return values.numpy()


@pytest.fixture(params=[False, True], ids=["any place", "fixed places"])
def split(request: pytest.FixtureRequest) -> Counting:
    return Counting(request.param)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    with FeatureStore(tmp_path / "cache", (6,), "float32") as opened:
        yield opened


def again(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "cache", (6,), "float32")


# ---- The same bits


BITS = """
import sys
import numpy as np
import distgrad
from distgrad import Tensor, nn
from distgrad.compiler import split_frozen
from distgrad.features.blocks import BLOCK, place_matters
from distgrad.features.blocks import pack
from distgrad.models import resnet18

side = int(sys.argv[1])
distgrad.manual_seed(0)
network = nn.freeze(resnet18())
network.fc = nn.Linear(512, 10)
generator = np.random.default_rng(0)
sample = generator.standard_normal((3, side, side)).astype(np.float32)
cut = split_frozen(network, Tensor(sample[None]))
rows = {}
for place in (0, 1, 7, 16, 31) if side < 224 else (0, 13, 31):
    for company in (0, 10):
        block = company * generator.standard_normal((BLOCK, 3, side, side)).astype(np.float32)
        block[place] = sample
        rows.setdefault(place, set()).add(cut.features(Tensor(block)).numpy()[place].tobytes())
assert all(len(bits) == 1 for bits in rows.values()), "company shows"
print(place_matters(), len(set.union(*rows.values())) > 1)
"""


@pytest.mark.parametrize("kernels", ["AVX2's", "the processor's"])
@pytest.mark.parametrize("side", [64, 224])
def test_a_sample_s_features_do_not_depend_on_its_company_nor_on_its_place_where_that_is_not_fixed(
    side: int, kernels: str
) -> None:
    """In float32 and at the shapes of the real network, whose matrix products have kernels for their edges.

    Where photos take any place, features must not depend on it; OpenBLAS's kernels for AVX2 are known to.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    environ |= {"OPENBLAS_NUM_THREADS": "1"} | ({"OPENBLAS_CORETYPE": "Haswell"} if kernels == "AVX2's" else {})
    ended = subprocess.run([sys.executable, "-c", BITS, str(side)], env=environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    fixed, depends = (word == "True" for word in ended.stdout.split())
    assert fixed or not depends


@pytest.mark.parametrize("samples", [0, 1, 31, 32, 33, 300])
def test_blocks_hold_each_sample_once_at_its_place(samples: int) -> None:
    generator = np.random.default_rng(samples)
    order = generator.permutation(samples).tolist()
    of = generator.integers(0, BLOCK, samples).tolist()
    for places in (None, [of[sample] for sample in order]):
        blocks = pack(order, places)
        assert sorted(sample for block, _ in blocks for sample in block) == sorted(order)
        for block, taken in blocks:
            assert len(block) == len(taken) == len(set(taken)) and taken == sorted(taken) and max(taken) < BLOCK
            assert places is None or taken == [of[sample] for sample in block]
        fewest = -(-samples // BLOCK) if places is None else max((of.count(place) for place in of), default=0)
        assert len(blocks) == fewest


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_kept_and_streamed_features_have_the_same_bits(
    folder: Path, tmp_path: Path, split: Counting, views: int | None, dtype: str
) -> None:
    with FeatureStore(tmp_path / "cache", (6,), dtype) as kept:
        cached, streamed = (features_of(folder, split, where, views, dtype=dtype) for where in (kept, None))
        for epoch in range(3):
            fill(cached, epoch)
            sampler = [GlobalBatchSampler(75, 20, 1, 0, seed=3) for _ in range(2)]
            loaders = [FeatureLoader(f, s) for f, s in zip((cached, streamed), sampler, strict=True)]
            for loader in loaders:
                loader.set_epoch(epoch)
            count = 0
            for (one, labels), (other, same_labels) in zip(*loaders, strict=True):
                count += 1
                assert one.dtype == other.dtype == "float32"
                assert one.numpy().tobytes() == other.numpy().tobytes()
                assert labels.tolist() == same_labels.tolist() and len(labels) == min(20, 75 - 20 * (count - 1))
                assert [s.batches_done for s in sampler] == [count, count]
            assert count == len(loaders[0]) == 4
    plain = all_of(features_of(folder, split, None, views))
    rounded = all_of(features_of(folder, split, None, views, dtype="float16"))
    assert rounded.tobytes() == plain.astype(np.float16).astype(np.float32).tobytes() != plain.tobytes()


def test_a_batch_without_samples_is_empty(folder: Path, split: Counting, store: FeatureStore) -> None:
    for where in (None, store):
        features = features_of(folder, split, where)
        fill(features, indices=[2])
        shapes = [(a.shape, b.shape) for a, b in features.batches([[], [2], []], 0)]
        assert shapes == [((0, 6), (0,)), ((1, 6), (1,)), ((0, 6), (0,))]


def test_the_loader_goes_on_behind_the_batches_done(folder: Path, split: Counting, store: FeatureStore) -> None:
    for where in (store, None):
        features = features_of(folder, split, where)
        fill(features)
        sampler = GlobalBatchSampler(75, 20, 1, 0, seed=3)
        whole = [values.numpy() for values, _ in FeatureLoader(features, sampler)]
        interrupted = iter(FeatureLoader(features, sampler))
        first = next(interrupted)[0].numpy()
        state = sampler.state_dict()
        assert state["batches_done"] == 1
        del interrupted
        sampler.load_state_dict(state)
        rest = [values.numpy() for values, _ in FeatureLoader(features, sampler)]
        assert np.concatenate([first, *rest]).tobytes() == np.concatenate(whole).tobytes()


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("ranks_per_host", [None, 2, 1])
def test_ranks_and_hosts_share_the_work_and_get_the_same_bits(
    folder: Path, tmp_path: Path, world_size: int, ranks_per_host: int | None
) -> None:
    """Hosts do not see each other's disk: what one computes reaches the others as messages."""
    expected = all_of(features_of(folder, Counting(), None, views=2), epoch=1)
    split = Counting()

    def one_rank() -> tuple[int, int]:
        ranks = communicator()
        with FeatureStore(tmp_path / f"disk of {ranks.hostname}", (6,), "float32") as store:
            features = features_of(folder, split, store, 2, ranks)
            assert fill(features, epoch=1) == 75
            assert all_of(features, epoch=1).tobytes() == expected.tobytes()
            return features.computed, features.reused

    assert threads.run(world_size, one_rank, ranks_per_host=ranks_per_host) == [(75, 0)] * world_size
    assert split.seen == 75, "each once over all ranks"
    for disk in tmp_path.glob("disk of *"):
        with FeatureStore(disk, (6,), "float32") as store:
            late = features_of(folder, split, store, 2)
            assert fill(late, epoch=1) == 0 and late.reused == 75, "every host has all for later runs"
            assert all_of(late, epoch=1).tobytes() == expected.tobytes()


def test_a_host_that_lost_its_disk_gets_the_features_from_the_others(folder: Path, tmp_path: Path) -> None:
    split = Counting()

    def one_rank() -> int:
        ranks = communicator()
        with FeatureStore(tmp_path / ranks.hostname, (6,), "float32") as store:
            return fill(features_of(folder, split, store, None, ranks))

    threads.run(3, one_rank, ranks_per_host=1)
    shutil.rmtree(tmp_path / "host1")
    assert threads.run(3, one_rank, ranks_per_host=1) == [0, 0, 0] and split.seen == 75
    (tmp_path / "host2").rename(tmp_path / "gone")
    (tmp_path / "host2").touch()  # a disk that takes nothing: in memory

    with pytest.warns(UserWarning, match="features are kept in memory"):
        assert threads.run(3, one_rank, ranks_per_host=1) == [0, 0, 0]
    assert split.seen == 75


# ---- Computed again when, and only when, something changes


def test_a_later_run_computes_nothing(folder: Path, tmp_path: Path, split: Counting, store: FeatureStore) -> None:
    features = features_of(folder, split, store)
    assert fill(features) == 75 and (features.computed, features.reused) == (75, 0)
    before = all_of(features)
    with again(tmp_path) as store:
        features = features_of(folder, split, store)
        assert fill(features) == fill(features) == 0
        assert (features.computed, features.reused) == (0, 75), "each photo is counted once"
        assert all_of(features).tobytes() == before.tobytes() and split.seen == 75


def test_only_the_photos_that_change_are_computed(folder: Path, tmp_path: Path, split: Counting) -> None:
    def run(views: int | None, epoch: int = 0) -> int:
        with again(tmp_path) as store:
            features = features_of(folder, split, store, views)
            computed = fill(features, epoch)
            assert all_of(features, epoch).tobytes() == all_of(features_of(folder, split, None, views), epoch).tobytes()
            return computed

    for views in (None, 3):
        assert (run(views), run(views)) == (75, 0)
        write(folder / "a" / "0000.png", 1000 + (views or 0))  # in front of the others, whose indices it moves
        assert run(views) == 1
        write(folder / "b" / "001.png", 2000 + (views or 0))
        assert run(views) == 1
        (folder / "c" / "002.png").rename(folder / "c" / "renamed.png")
        os.utime(folder / "c" / "005.png", (1, 1))
        shutil.copy(folder / "a" / "006.png", folder / "b" / "copy.png")
        assert run(views) == 0, "names, times and copies do not matter"
        (folder / "a" / "009.png").unlink()
        assert run(views) == 0
        for path, name in (("c/renamed.png", "c/002.png"),):
            (folder / path).rename(folder / name)
        (folder / "b" / "copy.png").unlink()
        write(folder / "a" / "009.png", 9)
        (folder / "a" / "0000.png").unlink()
        write(folder / "b" / "001.png", 1)
        assert run(views) == 0, "what was there before is still kept"


def test_equal_photos_are_computed_once(folder: Path, split: Counting, store: FeatureStore) -> None:
    for name in ("x.png", "y.png"):
        shutil.copy(folder / "a" / "000.png", folder / "b" / name)
    features = features_of(folder, split, store)
    assert fill(features) == 75 and split.seen == 75
    values = all_of(features)
    assert values[25 + 25].tobytes() == values[25 + 26].tobytes() == values[0].tobytes()


def test_views_take_turns_and_are_made_when_an_epoch_needs_them(
    folder: Path, tmp_path: Path, split: Counting, store: FeatureStore
) -> None:
    features = features_of(folder, split, store, views=2)
    assert [fill(features, epoch) for epoch in range(5)] == [75, 75, 0, 0, 0]
    epochs = [all_of(features, epoch) for epoch in range(4)]
    assert epochs[0].tobytes() == epochs[2].tobytes() != epochs[1].tobytes() == epochs[3].tobytes()
    with again(tmp_path) as store:
        assert fill(features_of(folder, split, store, views=2, seed=1)) == 75, "another seed draws other views"
        assert fill(features_of(folder, split, store, views=7), epoch=8) == 0, "version 1 is the same in any number"
    with pytest.raises(ValueError, match="new versions each epoch cannot be kept"):
        features_of(folder, split, store, views=0)


def test_without_views_augmentation_is_the_data_loader_s(folder: Path) -> None:
    split = Counting(fixed_places=False)
    photos = ImageFolder(folder, RANDOM)
    loader = DataLoader(photos, batch_sampler=[list(range(32))], seed=5)
    loader.set_epoch(3)
    [(images, _)] = loader
    features = features_of(folder, split, None, views=0, seed=5)
    [(values, _)] = features.batches([range(32)], 3)
    assert values.numpy().tobytes() == split.features(images).numpy().tobytes()


def test_only_what_is_needed_is_computed(folder: Path, split: Counting, store: FeatureStore) -> None:
    features = features_of(folder, split, store)
    assert fill(features, indices=[3, 70, 3]) == 2 and split.seen == 2
    assert fill(features, indices=range(10)) == 9 and (features.computed, features.reused) == (11, 0)
    with pytest.raises(KeyError, match="compute it first"):
        list(features.batches([[11]], 0))


def test_damaged_files_are_computed_again(folder: Path, tmp_path: Path, split: Counting, store: FeatureStore) -> None:
    features = features_of(folder, split, store)
    fill(features)
    expected = all_of(features)
    store.close()
    [path] = (tmp_path / "cache").glob("*.rows")
    content = bytearray(path.read_bytes())
    record = (len(content) - 512) // 75
    for row in (0, 40, 41):
        content[512 + row * record + 70] ^= 1
    path.write_bytes(content[: -record // 2])
    with again(tmp_path) as store:
        features = features_of(folder, split, store)
        assert fill(features) == 4 and features.reused == 71
        assert all_of(features).tobytes() == expected.tobytes()


# ---- What goes wrong


def test_a_photo_that_changes_during_the_run_is_named(folder: Path, split: Counting, store: FeatureStore) -> None:
    features = features_of(folder, split, store)
    missing = features.missing(range(75), 0)
    write(folder / "a" / "003.png", 5000)
    with pytest.raises(DataError, match=r"003\.png' is not the same file as when the run began"):
        features.compute(missing, range(75), 0)


def test_a_photo_that_is_gone_or_broken_is_named(folder: Path, split: Counting, store: FeatureStore) -> None:
    features = features_of(folder, split, store)
    (folder / "a" / "003.png").unlink()
    with pytest.raises(DataError, match=r"003\.png' cannot be opened \(No such file or directory\): replace it"):
        features.missing(range(75), 0)
    (folder / "a" / "003.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    missing = features.missing(range(75), 0)
    with pytest.raises(DataError, match=r"003\.png.* cannot be decoded"):
        features.compute(missing, range(75), 0)
    with pytest.raises(DataError, match=r"003\.png.* cannot be decoded"):
        all_of(features_of(folder, split, None))


def test_features_that_half_precision_cannot_hold_are_refused(folder: Path, split: Counting) -> None:
    split.weight *= 1e4
    with pytest.raises(DataError, match=r"do not fit float16: choose float32 \(--features.dtype float32\)"):
        all_of(features_of(folder, split, None, dtype="float16"))
