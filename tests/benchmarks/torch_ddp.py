"""The peer of ``whole_job.py``: frozen finetuning of ResNet-18 in PyTorch, one process of a job over gloo.

What a careful user would write: photos decoded by DataLoader workers, which hand over bytes, the frozen backbone in
evaluation mode without gradients, in channels_last, its BatchNorm folded and its graph optimized by torch.jit,
DistributedDataParallel around the classifier alone. With ``--cache`` each rank computes the features of its photos once
and then trains on these.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT come from the environment, as under torchrun.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import architectures
import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FEATURES = 512


class Photos(Dataset):
    """Photos of a folder with one folder a class: bytes (height, width, 3), resized and cropped at the centre."""

    def __init__(self, folder: Path, size: int) -> None:
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
        self.classes, self.size, self.shorter = classes, size, round(size * 256 / 224)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as file:
            image = file.convert("RGB")
        width, height = image.size
        if width <= height:
            width, height = self.shorter, int(self.shorter * height / width)
        else:
            width, height = int(self.shorter * width / height), self.shorter
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return torch.from_numpy(np.array(image.crop((left, top, left + self.size, top + self.size)))), label


def normalized(photos: torch.Tensor) -> torch.Tensor:
    """Bytes (N, height, width, 3) to the network's (N, 3, height, width), channels_last without a copy."""
    std = torch.tensor(STD)
    values = photos.float().mul_(1 / (255 * std)).sub_(torch.tensor(MEAN) / std)
    return values.permute(0, 3, 1, 2)


def backbone(weights: Path, batch: int, size: int) -> Any:
    """The pretrained network without its classifier, (N, 3, size, size) to (N, 512), in PyTorch's fastest form."""
    model = architectures.build(torch, "resnet18")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")}, strict=False)
    model.fc = nn.Identity()
    model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    example = torch.zeros(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, example)))
        for _ in range(2):
            model(example)  # it optimizes in its first runs
    return model


def loader(photos: Dataset, batch: int, workers: int, sampler: Any = None) -> DataLoader:
    """Batches of bytes, decoded by other processes."""
    return DataLoader(
        photos,
        batch,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )


class Features:
    """A rank's photos as features, computed once, in one tensor; a new order in each epoch."""

    def __init__(self, extract: Any, batches: DataLoader, seed: int, shuffle: bool) -> None:
        with torch.no_grad():
            found = [(extract(normalized(photos)), labels) for photos, labels in batches]
        self.inputs, self.labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        self.random = torch.Generator().manual_seed(seed) if shuffle else None

    def batches(self, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of features and labels."""
        count = len(self.labels)
        order = torch.arange(count) if self.random is None else torch.randperm(count, generator=self.random)
        for part in order.split(batch):
            yield self.inputs[part], self.labels[part]


class Decoded:
    """A rank's photos, decoded and computed anew in each epoch."""

    def __init__(self, extract: Any, batches: DataLoader) -> None:
        self.extract, self.loader = extract, batches

    def batches(self, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of features and labels."""
        for photos, labels in self.loader:
            with torch.no_grad():
                features = self.extract(normalized(photos))
            yield features, labels


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """The job; what came of it."""
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    photos = Photos(arguments.data / "train", arguments.size)
    held_out = Photos(arguments.data / "val", arguments.size)
    mine = Subset(held_out, range(rank, len(held_out), world))
    batch = math.ceil(arguments.batch / world)
    extract = backbone(arguments.weights, batch, arguments.size)
    head = nn.Linear(FEATURES, len(photos.classes))
    model = DistributedDataParallel(head)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.lr, momentum=0.9)
    steps = math.ceil(math.ceil(len(photos) / world) / batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs * steps)
    sampler = DistributedSampler(photos, world, rank)
    if rank == 0:
        print("ready", flush=True)
    training: Features | Decoded
    validation: Features | Decoded
    if arguments.cache:
        sampler.shuffle = False  # a rank keeps its photos
        training = Features(extract, loader(photos, batch, arguments.workers, sampler), rank, True)
        validation = Features(extract, loader(mine, batch, arguments.workers), rank, False)
    else:
        training = Decoded(extract, loader(photos, batch, arguments.workers, sampler))
        validation = Decoded(extract, loader(mine, batch, arguments.workers))
    accuracy = math.nan
    for epoch in range(arguments.epochs):
        sampler.set_epoch(epoch)
        model.train()
        for features, labels in training.batches(batch):
            loss = F.cross_entropy(model(features), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        right = torch.zeros(2)
        model.eval()
        with torch.no_grad():
            for features, labels in validation.batches(batch):
                right += torch.tensor([(head(features).argmax(1) == labels).sum(), len(labels)])
        dist.all_reduce(right)
        accuracy = float(right[0] / right[1])
        if rank == 0:
            state = {"model": head.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            torch.save(state, arguments.output / "checkpoint.pt")
            print(f"epoch {epoch + 1}/{arguments.epochs}: accuracy {accuracy:.4f}", flush=True)
    return {"accuracy": accuracy, "epochs": arguments.epochs, "photos": len(photos), "held out": len(held_out)}


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train and val")
    parser.add_argument("--weights", type=Path, required=True, help="ResNet-18's pretrained values, a .pth file")
    parser.add_argument("--output", type=Path, required=True, help="for the checkpoint and result.json")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64, help="over all ranks")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--workers", type=int, default=1, help="decoding processes a rank")
    parser.add_argument("--cache", action="store_true", help="compute the features once")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = train(arguments)
    if dist.get_rank() == 0:
        (arguments.output / "result.json").write_text(json.dumps(found))
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
