"""Settings to things: the photos, the model with its new classifier, the optimizer and its schedule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import distgrad
from distgrad import distributed, nn, optim
from distgrad.compiler import Split, split_frozen
from distgrad.data import ImageFolder, PhotoCache, transforms
from distgrad.distributed import Communicator, ZeroRedundancyOptimizer
from distgrad.errors import ConfigError, DataError, WeightsError
from distgrad.models import MODELS, get_model_weights
from distgrad.models.state_dict_file import load_state_dict_file
from distgrad.models.weights import Preprocessing

from . import digits
from .settings import Settings

# Every pretrained model here was trained on photos normalized like this.
NORMALIZATION = Preprocessing()


def training_transform(settings: Settings) -> transforms.Compose:
    """From a photo to what the model is trained on."""
    if not settings.data.augment:
        return evaluation_transform(settings)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(settings.data.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(NORMALIZATION.mean, NORMALIZATION.std),
        ]
    )


def evaluation_transform(settings: Settings) -> transforms.Compose:
    """From a photo to what the model is evaluated on."""
    return transforms.Compose(
        [
            transforms.Resize(settings.data.resize),
            transforms.CenterCrop(settings.data.image_size),
            transforms.ToTensor(),
            transforms.Normalize(NORMALIZATION.mean, NORMALIZATION.std),
        ]
    )


def photos(settings: Settings, ranks: Communicator) -> tuple[ImageFolder, ImageFolder]:
    """The training and the validation photos, the same on every rank. A collective.

    Raises:
        DataError: a folder that cannot be used, a photo that cannot be decoded (where these are to be skipped: a class
            without any other), fewer photos than ranks, or too few in a batch for every rank or for BatchNorm.
    """
    if settings.data.dataset == "digits":
        if ranks.local_rank == 0:
            digits.write(settings.data.train_folder.parent)
        ranks.barrier()
    orientation, decode = settings.data.exif_orientation, settings.data.decode
    cache = None if settings.data.photo_cache is None else PhotoCache(settings.data.photo_cache)
    train = ImageFolder(
        settings.data.train_folder,
        transform=training_transform(settings),
        exif_orientation=orientation,
        decode=decode,
        photo_cache=cache,
    )
    val = ImageFolder(
        settings.data.val_folder,
        transform=evaluation_transform(settings),
        exif_orientation=orientation,
        classes=train.classes,
        decode=decode,
        photo_cache=cache,
    )
    if settings.data.on_error == "skip":
        for photos_of in (train, val):
            drop_broken(photos_of, ranks)
    if len(train) < ranks.world_size:
        raise DataError(
            f"there are more ranks than photos: {ranks.world_size} ranks, {len(train)} photos in "
            f"{settings.data.train_folder}. Start at most {len(train)} ranks."
        )
    if settings.data.batch_size < ranks.world_size:
        raise DataError(
            f"data.batch_size is {settings.data.batch_size} photos over all ranks, but there are {ranks.world_size} "
            f"ranks, so that some would never get one. Start fewer ranks, or pass --data.batch_size "
            f"{ranks.world_size}."
        )
    _check_batch_statistics(settings, len(train), ranks.world_size)
    return train, val


def check_ranks(settings: Settings, ranks: Communicator) -> None:
    """Raises ``ConfigError`` unless there is a slice of each batch for every rank."""
    if settings.virtual_ranks is not None and settings.virtual_ranks < ranks.world_size:
        raise ConfigError(
            f"distributed.virtual_ranks is {settings.virtual_ranks}, but there are {ranks.world_size} ranks: pass "
            f"--distributed.virtual_ranks {ranks.world_size} (results depend on it), or start fewer ranks."
        )


def _check_batch_statistics(settings: Settings, photos: int, world_size: int) -> None:
    """Raises ``DataError`` where BatchNorm in training would meet a single value per channel, maybe hours later."""
    # Both networks shrink a photo 32 times: from 33 pixels on, one photo alone has several values per channel.
    if settings.model.freeze or settings.data.image_size > 32:
        return
    virtual = settings.virtual_ranks
    parts = world_size if virtual is None else virtual
    cure = "start fewer ranks" if virtual is None else "lower --distributed.virtual_ranks"
    to = f"{parts} rank{'s' * (parts > 1)}" if virtual is None else f"{parts} slice{'s' * (parts > 1)}"
    if settings.distributed.sync_batch_norm:  # whose statistics are those of the whole batch
        parts, cure = 1, "drop photos"
    for size in (min(settings.data.batch_size, photos), photos % settings.data.batch_size):
        if 0 < size < 2 * parts:  # shares differ by one at most, so that then some rank has exactly one photo
            raise DataError(
                f"BatchNorm cannot be trained on a single photo of {settings.data.image_size} pixels, and {photos} "
                f"photos in batches of {settings.data.batch_size} leave a batch of {size} to {to}. Change "
                f"--data.batch_size, {cure}, or pass --data.image_size 33 or more."
            )


def drop_broken(photos_of: ImageFolder, ranks: Communicator) -> None:
    """Takes the photos that cannot be decoded out of ``photos_of``; the ranks share the work. A collective."""
    mine = photos_of.scan(range(ranks.rank, len(photos_of), ranks.world_size))
    gathered = ranks.all_gather_bytes(json.dumps(list(mine)).encode())
    photos_of.drop(index for part in gathered for index in json.loads(part))


def architecture(settings: Settings, classes: int) -> nn.Module:
    """The model of ``settings`` with ``classes`` outputs and random values."""
    return MODELS[settings.model.name](num_classes=classes)


def load_into(model: nn.Module, state: Mapping[str, Any], source: object) -> None:
    """Loads values into the model; what does not fit is a ``WeightsError`` that names the file and each key."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{source} does not fit the model: {error}") from None


def model(settings: Settings, classes: int) -> nn.Module:
    """The pretrained model, its classifier ``fc`` replaced by one for ``classes``, and the rest frozen if asked.

    The classifier starts from ``run.seed``, so every rank makes the same one.

    Raises:
        WeightsError: the weights cannot be found or do not fit.
    """
    distgrad.manual_seed(settings.run.seed)
    network = architecture(settings, classes)
    if settings.model.weights != "none":
        state, source = _pretrained(settings)
        # A file of the user's own may have been trained on another number of classes: its fc is read, then replaced.
        if "fc.weight" in state and state["fc.weight"].ndim == 2:
            network.fc = nn.Linear(network.fc.in_features, state["fc.weight"].shape[0])
        load_into(network, state, source)
    if settings.model.freeze:
        nn.freeze(network)
    network.fc = nn.Linear(network.fc.in_features, classes)
    return network


def split(settings: Settings, network: nn.Module) -> Split:
    """The model with a frozen backbone, cut behind what no training changes."""
    network.train()
    found = split_frozen(network, distgrad.zeros(1, 3, settings.data.image_size, settings.data.image_size))
    assert found is not None, "every model of the recipe has a frozen backbone and a trained fc"
    return found


def _pretrained(settings: Settings) -> tuple[Mapping[str, Any], str]:
    """The values that ``model.weights`` names, and what to call them in an error."""
    if settings.model.weights != "default":
        return load_state_dict_file(settings.model.weights), settings.model.weights
    weights = get_model_weights(settings.model.name)
    state = weights["DEFAULT"].get_state_dict(progress=distributed.local_rank() == 0)
    return state, f"{weights.__name__}.DEFAULT"


def optimizer(settings: Settings, network: nn.Module, ranks: Communicator) -> optim.Optimizer:
    """SGD over the parameters that require a gradient, its state shared out if the settings say so. A collective."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    given: dict[str, Any] = {
        "lr": settings.optim.lr,
        "momentum": settings.optim.momentum,
        "dampening": settings.optim.dampening,
        "weight_decay": settings.optim.weight_decay,
        "nesterov": settings.optim.nesterov,
    }
    if settings.distributed.zero:
        return ZeroRedundancyOptimizer(parameters, optim.SGD, ranks, **given)
    return optim.SGD(parameters, **given)


def schedule(settings: Settings, sgd: optim.Optimizer, steps_per_epoch: int) -> optim.lr_scheduler.LRScheduler:
    """The learning rate, set once a step: a linear warm-up, then what ``schedule.name`` says.

    Raises:
        ConfigError: the warm-up is as long as the run.
    """
    chosen = settings.schedule
    warmup = chosen.warmup(steps_per_epoch)
    steps_in_all = settings.train.epochs * steps_per_epoch
    rest = steps_in_all - warmup
    if rest <= 0:
        raise ConfigError(
            f"the warm-up takes {warmup} steps and the whole run has {steps_in_all}, so that it never "
            "ends: lower schedule.warmup_steps or schedule.warmup_epochs, or raise train.epochs."
        )

    def main_part() -> optim.lr_scheduler.LRScheduler:
        if chosen.name == "cosine":
            return optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=rest, eta_min=chosen.min_lr)
        if chosen.name == "step":
            return optim.lr_scheduler.StepLR(sgd, step_size=chosen.step_size * steps_per_epoch, gamma=chosen.gamma)
        return optim.lr_scheduler.ConstantLR(sgd, factor=1.0, total_iters=0)

    if warmup == 0:
        return main_part()
    rising = optim.lr_scheduler.LinearLR(sgd, start_factor=chosen.warmup_start_factor, total_iters=warmup)
    return optim.lr_scheduler.SequentialLR(sgd, [rising, main_part()], milestones=[warmup])
