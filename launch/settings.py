"""The recipe's settings: every key with its meaning, its default and its limits, on one page.

A config file is these sections as TOML; ``--section.key VALUE`` overrides one key.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from distgrad import blas, config


class Section(BaseModel):
    """A section of a config: unknown keys are errors, text is not a number, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class RunSettings(Section):
    """[run]: what this training is called and where it writes."""

    name: str = Field(default="", description="folder of this run below `output`; empty: the config file's name")
    output: str = Field(default="runs", min_length=1, description="folder that holds all runs")
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="of the classifier's start, the order of samples and augmentation"
    )

    @field_validator("name")
    @classmethod
    def _is_one_folder(cls, name: str) -> str:
        if "/" in name or "\0" in name or name in (".", ".."):
            raise ValueError("must be a plain folder name; run.output says where it lies")
        return name


class ModelSettings(Section):
    """[model]: the network and where it starts; `fc` is always replaced by one output a class of the training data."""

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = "resnet18"
    weights: str = Field(
        default="default",
        min_length=1,
        description="'default': ImageNet-pretrained; 'none': random; else the path of a .pth or .safetensors file",
    )
    freeze: bool = Field(
        default=True, description="train only `fc`; the backbone keeps its weights and running statistics"
    )


class DataSettings(Section):
    """[data]: the photos, one folder a class; relative paths start at the current directory."""

    dataset: Literal["folder", "digits"] = Field(
        default="folder",
        description="'folder': your photos; 'digits': scikit-learn's handwritten digits, written below data/digits",
    )
    train: str | None = Field(
        default=None, validate_default=True, description="folder of training photos, one folder a class"
    )
    val: str | None = Field(
        default=None, validate_default=True, description="folder of validation photos, the same classes"
    )
    batch_size: int = Field(default=64, ge=1, description="photos in one optimizer step, over all ranks together")
    image_size: int = Field(default=224, ge=1, description="side of the square that the model sees, in pixels")
    resize_size: int | None = Field(
        default=None, ge=1, description="shorter side before the centre crop; absent: image_size * 256 / 224"
    )
    augment: bool = Field(
        default=True, description="training photos: random resized crop and horizontal flip; false: as validation"
    )
    exif_orientation: bool = Field(
        default=False, description="turn photos as their EXIF tag says (torchvision does not)"
    )
    decode: Literal["exact", "box", "fast"] = Field(
        default="exact",
        description="'exact': as torchvision; 'box': resize only the box that is kept; 'fast': also decode JPEGs small",
    )
    on_error: Literal["raise", "skip"] = Field(
        default="raise", description="a photo that cannot be decoded: stop, or skip and count"
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        le=256,
        examples=[1],
        description="decoding threads a rank; absent: one for each four of its cores; 0: decode between the steps",
    )
    photo_cache: str | None = Field(
        default=None,
        min_length=1,
        description="folder for the bytes of resized photos, for later epochs and runs; not used where data.augment is",
    )

    @field_validator("train", "val")
    @classmethod
    def _folder_or_generated(cls, path: str | None, info: ValidationInfo) -> str | None:
        dataset = info.data.get("dataset", "folder")
        if dataset == "folder" and not path:
            raise ValueError(
                f'must name a folder of photos, one folder a class: write {info.field_name} = "PATH" in [data] '
                f"or pass --data.{info.field_name} PATH"
            )
        if dataset != "folder" and path is not None:
            raise ValueError(f'is not used by data.dataset = "{dataset}", which generates its own: set it to "folder"')
        return path

    @field_validator("resize_size")
    @classmethod
    def _covers_the_crop(cls, size: int | None, info: ValidationInfo) -> int | None:
        if size is not None and size < info.data.get("image_size", 0):
            raise ValueError(f"must be at least data.image_size ({info.data['image_size']}), which is cropped from it")
        return size

    @property
    def train_folder(self) -> Path:
        """Where the training photos are, or will be generated."""
        return Path(self.train) if self.train is not None else Path("data", self.dataset, "train")

    @property
    def val_folder(self) -> Path:
        """Where the validation photos are, or will be generated."""
        return Path(self.val) if self.val is not None else Path("data", self.dataset, "val")

    @property
    def decoding_threads(self) -> int:
        """How many threads of a rank decode photos."""
        return blas.decoding_threads(blas.cores_of_this_process()) if self.workers is None else self.workers

    @property
    def resize(self) -> int:
        """Shorter side, in pixels, to which a photo is resized before the centre crop."""
        return self.resize_size if self.resize_size is not None else round(self.image_size * 256 / 224)


class FeatureSettings(Section):
    """[features]: what a frozen backbone makes of the photos, computed once and kept for all epochs and later runs."""

    cache: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="'auto': where the backbone is frozen and a photo's versions are finite; 'off': compute anew",
    )
    views: int = Field(
        default=4,
        ge=0,
        description="versions of a photo under data.augment, taken in turn; 0: a new one each epoch, which is not kept",
    )
    dtype: Literal["float32", "float16"] = Field(
        default="float32", description="that features are rounded to, kept or not; 'float16' halves the cache"
    )
    folder: str | None = Field(
        default=None, min_length=1, description="where they are kept; absent: `.features` below run.output"
    )
    limit_gb: float = Field(
        default=20.0,
        gt=0,
        description="features of other backbones and settings go, the longest unused first, above this",
    )


class OptimSettings(Section):
    """[optim]: SGD, with PyTorch's meaning of each key."""

    lr: float = Field(default=0.05, gt=0, description="learning rate at its highest")
    momentum: float = Field(default=0.9, ge=0, lt=1)
    dampening: float = Field(default=0.0, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    nesterov: bool = False

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        momentum, dampening = info.data.get("momentum", 0.9), info.data.get("dampening", 0.0)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                "needs optim.momentum above 0 and optim.dampening = 0 "
                f"(they are {momentum} and {dampening}); change these or set nesterov = false"
            )
        return nesterov


class ScheduleSettings(Section):
    """[schedule]: the learning rate over time; it spans train.epochs and is set before every step."""

    name: Literal["constant", "step", "cosine"] = "cosine"
    step_size: int = Field(default=30, ge=1, description="'step': epochs between two decays")
    gamma: float = Field(default=0.1, gt=0, le=1, description="'step': factor of a decay")
    min_lr: float = Field(default=0.0, ge=0, description="'cosine': learning rate at the end")
    warmup_epochs: float = Field(
        default=0.0, ge=0, description="the rate rises linearly over this time; fractions count"
    )
    warmup_steps: int = Field(default=0, ge=0, description="the same in steps; give one of the two")
    warmup_start_factor: float = Field(
        default=0.01, gt=0, le=1, description="the first rate of the warm-up, as a part of optim.lr"
    )

    @field_validator("warmup_steps")
    @classmethod
    def _one_warmup(cls, steps: int, info: ValidationInfo) -> int:
        if steps and info.data.get("warmup_epochs"):
            raise ValueError(
                f"and schedule.warmup_epochs = {info.data['warmup_epochs']} say the same thing; leave one of them out"
            )
        return steps

    def warmup(self, steps_per_epoch: int) -> int:
        """Length of the warm-up in optimizer steps."""
        return self.warmup_steps or round(self.warmup_epochs * steps_per_epoch)


class TrainSettings(Section):
    """[train]: how long, and the loss."""

    epochs: int = Field(default=3, ge=1, description="passes over the training photos")
    max_steps: int | None = Field(
        default=None,
        ge=1,
        examples=[100],
        description="stop after so many steps in all; the schedule still spans `epochs`",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    compile: bool = Field(default=True, description="run the network by plans (distgrad.compile); false: eager")


class CheckpointSettings(Section):
    """[checkpoint]: when the run is written down, besides the end of every epoch, and how much of it is kept."""

    every_steps: int = Field(
        default=0, ge=0, description="also after every so many steps; 0: only at the end of an epoch"
    )
    keep: int = Field(default=2, ge=1, description="newest checkpoints that stay on disk, besides the best one")


class DistributedSettings(Section):
    """[distributed]: how ranks work together."""

    reproducible: bool = Field(
        default=False,
        description="the same model file, byte for byte, on any number of ranks; small slices take longer",
    )
    virtual_ranks: int = Field(
        default=8,
        ge=1,
        description="with `reproducible`: slices of a batch, at least as many as ranks; results depend on it",
    )
    blas_threads: int = Field(
        default=1,
        ge=1,
        description="with `reproducible`: threads of NumPy's BLAS in each rank, on which the last bits depend",
    )
    comm_hook: Literal[
        "auto", "all_reduce", "reduce_scatter", "hierarchical", "fp16", "bfloat16", "top_k", "power_sgd"
    ] = Field(
        default="all_reduce",
        description="how gradients are summed; 'auto': the exact one with which the first steps are fastest; 'fp16' "
        "and 'bfloat16' round them to half the bytes, 'top_k' and 'power_sgd' compress them further",
    )
    bucket_cap_mb: float = Field(
        default=25.0,
        ge=0,
        description="MiB of gradients in one message; 0: the size with which the first steps are fastest",
    )
    progress: Literal["auto", "thread", "patient", "poll", "none"] = Field(
        default="auto",
        description="who carries gradients while backward goes on: a thread inside of MPI, a thread that sleeps in "
        "between, the backward pass, or nobody before its end; 'auto': the fastest in a short trial at the start",
    )
    sync_batch_norm: bool = Field(
        default=False,
        description="with model.freeze = false: BatchNorm over the photos of all ranks, for when each has few; such a "
        "network is not compiled",
    )
    zero: bool = Field(
        default=False,
        description="each rank keeps the optimizer's state of its share of the parameters only; the same bits",
    )
    timeout: float | None = Field(
        default=None,
        ge=0,
        examples=[60.0],
        description="seconds that ranks may wait for one before a report ends the job; 0: for ever; absent: what "
        "DISTGRAD_TIMEOUT says, or 600",
    )
    check: bool = Field(
        default=False,
        description="compare what ranks are about to do before each message, to find a mismatch; DISTGRAD_CHECK=1 too",
    )
    desync_every: int = Field(
        default=100, ge=0, description="compare the ranks' models after every so many steps; 0: never"
    )
    heal: bool = Field(
        default=False, description="a rank whose model differs gets rank 0's, with a warning; false: that ends the job"
    )


class ObserveSettings(Section):
    """[observe]: what a run shows of its own work, besides its metrics."""

    timeline: bool = Field(
        default=False,
        description="write `timeline.json` into the run's folder: what each rank did when, for https://ui.perfetto.dev",
    )
    timeline_steps: int = Field(
        default=20,
        ge=1,
        description="with `timeline`: how many steps it shows; it begins after three, which are slower",
    )


class Settings(Section):
    """A whole recipe."""

    run: RunSettings = Field(default_factory=RunSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    data: DataSettings
    features: FeatureSettings = Field(default_factory=FeatureSettings)
    optim: OptimSettings = Field(default_factory=OptimSettings)
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    checkpoint: CheckpointSettings = Field(default_factory=CheckpointSettings)
    distributed: DistributedSettings = Field(default_factory=DistributedSettings)
    observe: ObserveSettings = Field(default_factory=ObserveSettings)

    @model_validator(mode="after")
    def _sections_agree(self) -> Settings:
        if self.schedule.name == "cosine" and self.schedule.min_lr >= self.optim.lr:
            raise PydanticCustomError(
                "settings",
                "must be less than optim.lr ({lr}), from which the cosine descends",
                {"key": "schedule.min_lr", "lr": self.optim.lr},
            )
        if self.schedule.warmup_epochs >= self.train.epochs:
            raise PydanticCustomError(
                "settings",
                "must be less than train.epochs ({epochs}), or the warm-up never ends",
                {"key": "schedule.warmup_epochs", "epochs": self.train.epochs},
            )
        ways = self.distributed
        if ways.reproducible and (ways.comm_hook == "auto" or ways.bucket_cap_mb == 0):
            raise PydanticCustomError(
                "settings",
                "leaves nothing to the clock: choose distributed.comm_hook and distributed.bucket_cap_mb yourself, not "
                '"auto" and not 0',
                {"key": "distributed.reproducible"},
            )
        if ways.reproducible and ways.sync_batch_norm:
            raise PydanticCustomError(
                "settings",
                "cannot be used with distributed.reproducible = true, where each slice of a batch has its own "
                "statistics: set one of them to false, and distributed.virtual_ranks lower for larger slices",
                {"key": "distributed.sync_batch_norm"},
            )
        if self.features.cache == "on" and not self.model.freeze:
            raise PydanticCustomError(
                "settings",
                'cannot be used: model.freeze = false changes the features with every step; set it to "auto" or "off"',
                {"key": "features.cache"},
            )
        if self.features.cache == "on" and self.data.augment and self.features.views == 0:
            raise PydanticCustomError(
                "settings",
                "cannot be used: features.views = 0 gives each photo a new version in every epoch; choose a number of "
                'views, or set data.augment = false, or cache = "auto" or "off"',
                {"key": "features.cache"},
            )
        return self

    @property
    def caches_features(self) -> bool:
        """Whether features are kept."""
        finite = not self.data.augment or self.features.views > 0
        return self.features.cache != "off" and self.model.freeze and finite

    @property
    def virtual_ranks(self) -> int | None:
        """Slices of a batch; None where each rank has one part."""
        return self.distributed.virtual_ranks if self.distributed.reproducible else None

    @property
    def feature_folder(self) -> Path:
        """Where features are kept."""
        return Path(self.features.folder) if self.features.folder is not None else Path(self.run.output, ".features")

    @property
    def directory(self) -> Path:
        """The run's folder, ``output/name``."""
        return Path(self.run.output, self.run.name)


def load_settings(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Settings:
    """Reads a recipe; a run without a name takes the config file's.

    Args:
        path: TOML file.
        overrides: command line tokens, ``["--optim.lr", "0.1"]``.

    Raises:
        ConfigError: lists every problem by file, key, value and cure.
    """
    settings = config.load(path, Settings, overrides)
    if settings.run.name:
        return settings
    run = settings.run.model_copy(update={"name": Path(path).stem})
    return settings.model_copy(update={"run": run})
