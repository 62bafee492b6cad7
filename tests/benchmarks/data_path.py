"""From files to normalized batches: photos a second of distgrad's loader in each of its modes, and of PyTorch's.

Both have one worker beside the loop that takes the batches, on the same core, and take turns; the peer is a
``torch.utils.data.DataLoader`` whose worker process decodes with Pillow as torchvision's transforms do. Ratios are
distgrad's time over the peer's within a round: below 1 distgrad is faster. Where distgrad gives the same bits ("exact"
and "cached"), batches are compared before anything is timed.

    python tests/benchmarks/data_path.py                     generated photos of 500 x 375 pixels
    python tests/benchmarks/data_path.py --photos FOLDER     those in FOLDER, one subfolder a class
    python tests/benchmarks/data_path.py --clock cpu         without workers, undisturbed by other programs
    python tests/benchmarks/data_path.py --overlap           what a decoding thread costs the thread that computes
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
from PIL import Image

SIZES = {224: 256, 64: 73}
MODES = ("exact", "box", "fast", "cached", "augmented", "augmented-fast")
PHOTOS, BATCH = 64, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLACE, WORKERS = "DISTGRAD_BENCHMARK_PHOTOS", "DISTGRAD_BENCHMARK_WORKERS"


def generate(folder: Path) -> None:
    """Writes photos of 500 x 375 pixels with smooth areas, edges and grain."""
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels[125:, 250:] //= 2
        pixels += rng.normal(0, 6, pixels.shape).astype(np.int16)
        place = folder / "photos" / f"class{number % 2}" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place, quality=90)


def chosen(folder: Path) -> list[Path]:
    """The photos that are measured: as many of each class."""
    classes = [sorted(path for path in place.iterdir()) for place in sorted(folder.iterdir()) if place.is_dir()]
    return [path for photos in classes for path in photos[: max(1, PHOTOS // len(classes))]][:PHOTOS]


# --------------------------------------------------------------------------------------------------------- the subjects


def subjects(library: str) -> dict[str, harness.Case]:
    """The cases of one library; a worker calls this."""
    folder = Path(os.environ[PLACE])
    make = of_distgrad if library == "distgrad" else of_torch
    cases = {}
    for size in SIZES:
        for mode in MODES:
            batches = make(folder, size, mode)
            same = mode in ("exact", "cached")
            values = partial(first_values, batches) if same else None
            cases[f"{size} {mode}"] = harness.Case(partial(consume, batches), PHOTOS, values)
    return cases


def consume(batches: Callable[[], Iterator[Any]]) -> int:
    """One pass over the photos."""
    return sum(len(images) for images, _ in batches())


def first_values(batches: Callable[[], Iterator[Any]]) -> list[Any]:
    """A few values of every photo of the first batch."""
    images = next(iter(batches()))[0].numpy()
    picked: list[Any] = images[:, :, ::37, ::41].astype(float).tolist()
    return picked


def of_distgrad(folder: Path, size: int, mode: str) -> Callable[[], Iterator[Any]]:
    """Passes over the photos with distgrad's loader."""
    from distgrad.data import DataLoader, ImageFolder, Subset, transforms

    head: list[Any] = [transforms.Resize(SIZES[size]), transforms.CenterCrop(size)]
    if mode.startswith("augmented"):
        head = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*head, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    cache: Path | None = None
    if mode == "cached":
        cache = folder.parent / f"cache-{size}"
    decode: Any = "fast" if mode.endswith("fast") else "box" if mode == "box" else "exact"
    photos = ImageFolder(folder, transform, decode=decode, photo_cache=cache)
    indices = {path: index for index, (path, _) in enumerate(photos.samples)}
    subset = Subset(photos, [indices[str(path)] for path in chosen(folder)])
    return partial(iter, DataLoader(subset, BATCH, num_workers=int(os.environ[WORKERS])))


def of_torch(folder: Path, size: int, mode: str) -> Callable[[], Iterator[Any]]:
    """Passes over the photos with PyTorch's loader, whose worker stays alive from pass to pass."""
    import torch
    from torch.utils.data import DataLoader

    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    paths = chosen(folder)
    augmented = mode.startswith("augmented")
    rng = np.random.default_rng(0)

    class Photos(torch.utils.data.Dataset):  # type: ignore[type-arg]
        """Decodes as torchvision's loader and transforms do."""

        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            with open(paths[index], "rb") as file:
                image = Image.open(file).convert("RGB")
            image = randomly_cropped(image, size, rng) if augmented else cropped(image, size)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
            return pixels.to(torch.float32).div(255).sub_(mean).div_(std), index % 2

    if os.environ[WORKERS] == "0":
        return partial(iter, DataLoader(Photos(), BATCH))
    return partial(iter, DataLoader(Photos(), BATCH, num_workers=1, persistent_workers=True, prefetch_factor=2))


def cropped(image: Image.Image, size: int) -> Image.Image:
    """The middle of the resized image."""
    target = SIZES[size]
    width, height = image.size
    shorter = min(width, height)
    resized = int(target * width / shorter), int(target * height / shorter)
    image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def randomly_cropped(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A random box, resized, and half of the time mirrored."""
    area = image.width * image.height
    left, top, width, height = 0, 0, image.width, image.height
    for _ in range(10):
        share, aspect = area * rng.uniform(0.08, 1.0), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        across, down = round(np.sqrt(share * aspect)), round(np.sqrt(share / aspect))
        if across <= image.width and down <= image.height:
            left, top = rng.integers(image.width - across + 1), rng.integers(image.height - down + 1)
            width, height = across, down
            break
    image = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


# ------------------------------------------------------------------------------------------------------ what is printed


def compare(arguments: Any, folder: Path) -> int:
    """Measures, prints and writes; 1 where batches differ."""
    count = 1 if arguments.clock == "wall" else 0
    harness.heading(
        f"Data path: photos a second, {BATCH} a batch, workers: {count}; ratios of the {arguments.clock} time"
    )
    script = Path(__file__).resolve()
    environ = {PLACE: str(folder), WORKERS: str(count)}
    workers, unavailable = harness.start(script, ["distgrad", "torch"], environ=environ)
    for library, reason in unavailable.items():
        print(f"skipped: {library}: {reason}")
    results, wrong = [], []
    try:
        for case in [name for name in workers["distgrad"].cases if arguments.only in name]:
            if "torch" in workers and case.split()[1] in ("exact", "cached"):
                ours, theirs = (workers[library].ask("values", case) for library in ("distgrad", "torch"))
                if difference := harness.disagreement(ours, theirs, 0.0, 0.0):
                    wrong.append(f"{case}: {difference}")
                    continue
            result = harness.compare(
                workers, case, rounds=arguments.rounds, seconds=arguments.seconds, clock=arguments.clock, patience=120
            )
            results.append(result)
            rates = ", ".join(
                f"{library} {1 / spread.median:6.0f} photos/s" for library, spread in result.seconds.items()
            )
            ratio = f"   ratio {result.ratio['torch']}" if "torch" in result.ratio else ""
            print(f"{case:20} {rates}{ratio}", flush=True)
    finally:
        for worker in workers.values():
            worker.stop()
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    harness.write_json(
        arguments.json, {"benchmark": "data path", "clock": arguments.clock, "wrong": wrong, "cases": results}
    )
    return 1 if wrong else 0


def training_loader(folder: Path, workers: int) -> Any:
    """The loader of augmented photos."""
    from distgrad.data import DataLoader, ImageFolder, transforms

    head = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*head, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    return DataLoader(ImageFolder(folder, transform), BATCH, shuffle=True, num_workers=workers)


def overlap(arguments: Any, folder: Path) -> int:
    """How much longer a computing thread takes while a thread of the process decodes, and while another process does.

    Both take a core, memory and clock rate away; what the thread costs more than the process is the interpreter lock's.
    """
    harness.heading("Overlap: a step while another process decodes, and while a thread does [quartiles]")
    rng = np.random.default_rng(0)
    large = rng.random((1024, 1024), np.float32)
    small = rng.random(64, np.float32)
    steps: dict[str, Callable[[], Any]] = {
        "matrix products": lambda: [large @ large for _ in range(4)],
        "small operations": lambda: [small + small for _ in range(40_000)],
    }

    def seconds(step: Callable[[], Any]) -> float:
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            step()
            taken.append(time.perf_counter() - started)
        return float(np.median(taken))

    def beside_a_process(step: Callable[[], Any]) -> float:
        other = subprocess.Popen([sys.executable, __file__, "--decode", str(folder)], stdout=subprocess.PIPE)
        try:
            assert other.stdout is not None
            other.stdout.readline()  # it is at work now
            return seconds(step)
        finally:
            other.kill()
            other.communicate()

    def beside_a_thread(step: Callable[[], Any]) -> float:
        ended = threading.Event()
        thread = threading.Thread(target=decode_until, args=(folder, ended))
        thread.start()
        try:
            return seconds(step)
        finally:
            ended.set()
            thread.join()

    figures = {}
    for name, step in steps.items():
        step()
        rounds = [(seconds(step), beside_a_process(step), beside_a_thread(step)) for _ in range(arguments.rounds)]
        process = harness.Spread.of([beside / alone for alone, beside, _ in rounds])
        thread = harness.Spread.of([beside / alone for alone, _, beside in rounds])
        lock = harness.Spread.of([beside / control for _, control, beside in rounds])
        print(f"{name:17} beside a process {process}, beside a thread {thread} of alone; ratio {lock}", flush=True)
        figures[name] = {"process": process, "thread": thread, "ratio": lock}
    harness.write_json(arguments.json, {"benchmark": "overlap", "ratios": figures})
    return 0


def decode_until(folder: Path, ended: threading.Event) -> None:
    """Decodes photos over and over."""
    while not ended.is_set():
        for _ in training_loader(folder, 0):
            if ended.is_set():
                return


def main() -> int:
    """Reads the command line."""
    parser = harness.parser(__doc__)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="photos, one subfolder a class")
    parser.add_argument(
        "--decode", type=Path, metavar="FOLDER", help="do nothing but decode: a process that --overlap starts"
    )
    parser.add_argument("--overlap", action="store_true", help="what a decoding thread costs the computing one")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="processor time is measured without workers"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose names contain it")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured (default: 9)")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of one measurement (default: 0.2)")
    arguments = parser.parse_args()
    if arguments.decode is not None:
        print("at work", flush=True)
        decode_until(arguments.decode, threading.Event())
    measure = overlap if arguments.overlap else compare
    if arguments.overlap and os.environ != harness.environment():
        os.execve(sys.executable, [sys.executable, *sys.argv], harness.environment())  # one thread of the BLAS
    with tempfile.TemporaryDirectory(prefix="distgrad-photos-") as place:
        if arguments.photos is None:
            generate(Path(place))
            return measure(arguments, Path(place, "photos"))
        # A copy, so that nothing is written beside the originals.
        copy = Path(place, "photos")
        for path in chosen(arguments.photos):
            target = copy / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        return measure(arguments, copy)


if __name__ == "__main__":
    sys.exit(main())
