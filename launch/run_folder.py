"""The folder of a run: what finetuning writes there and the other commands read.

runs/NAME/config.toml       the settings, defaults filled in
runs/NAME/classes.json      the class names, in the order of the model's outputs
runs/NAME/metrics.jsonl     one record an epoch, and one where train.max_steps ends within an epoch
runs/NAME/last, best        checkpoints: model.safetensors (torchvision's keys) and the training state; links into
runs/NAME/checkpoints/      the newest of them and the best
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distgrad import checkpoint, config
from distgrad.checkpoint import atomic
from distgrad.errors import CheckpointError, ConfigError
from distgrad.nn import Module

from . import recipe
from .settings import Settings, load_settings

CONFIG = "config.toml"
CLASSES = "classes.json"
METRICS = "metrics.jsonl"
TIMELINE = "timeline.json"

# A resumed run may change how long it goes on, how it works and where it lies, but not what it computes up to there.
_MAY_CHANGE = {
    "train.max_steps", "data.workers", "data.photo_cache", "checkpoint.every_steps", "checkpoint.keep", "run.output",
    "features.cache", "features.folder", "features.limit_gb", "observe.timeline", "observe.timeline_steps",
}  # fmt: skip


def check_unused(directory: Path) -> None:
    """Raises ``ConfigError`` where a run of this name has been written already."""
    if (directory / "last").exists():
        raise ConfigError(
            f"{directory} holds a run already. --resume goes on with it, --overwrite replaces it, and --run.name NAME "
            "starts another one beside it."
        )


def write(directory: Path, settings: Settings, classes: Sequence[str]) -> None:
    """Writes the settings and the class names; each file is whole or not there."""
    for name, text in ((CONFIG, config.dump(settings)), (CLASSES, json.dumps(list(classes), ensure_ascii=False))):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            atomic.write_file(directory / name, f"{text}\n".encode())
        except OSError as error:
            raise CheckpointError(
                f"cannot write {directory / name}: {error.strerror}. Make room or make the place writable, or choose "
                "another one with --run.output."
            ) from error


def remove(directory: Path) -> None:
    """Removes what a run has written, and nothing else that may lie there."""
    for name in ("last", "best", "checkpoints", CONFIG, CLASSES, METRICS, TIMELINE):
        try:
            atomic.remove(directory / name)
        except OSError as error:
            raise CheckpointError(
                f"cannot remove {directory / name}: {error.strerror}. Make the place writable, or choose another one "
                "with --run.output."
            ) from error


def check_resumes(directory: Path, settings: Settings) -> None:
    """Raises ``ConfigError`` where ``settings`` would compute something else than the run in ``directory`` did."""
    before, now = (_flat(s.model_dump()) for s in (load_settings(directory / CONFIG), settings))
    # A cosine descends over all epochs: with another number of them, the steps already done had another rate.
    may_change = _MAY_CHANGE if settings.schedule.name == "cosine" else _MAY_CHANGE | {"train.epochs"}
    differing = [key for key in now if before.get(key) != now[key] and key not in may_change]
    if differing:
        listed = "; ".join(f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in differing)
        raise ConfigError(
            f"{directory} cannot be resumed with other settings: {listed}. Put them back, or start another run with "
            "--run.name NAME."
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def read(run: Path, which: str | None = None) -> tuple[Settings, list[str], Module]:
    """The settings, class names and model of a finished or interrupted run.

    Args:
        run: the run's folder, or the folder of one of its checkpoints.
        which: "best" or "last"; the best that there is without it.

    Raises:
        CheckpointError: there is no run, or nothing in it to load.
    """
    where = checkpoint.locate(run, which) if which else checkpoint.locate(run)
    directory = run_of(run)
    settings = load_settings(directory / CONFIG)
    try:
        classes = json.loads((directory / CLASSES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{directory / CLASSES}, which names the classes of this run, cannot be read: {error}"
        ) from None
    model = recipe.architecture(settings, len(classes))
    recipe.load_into(model, checkpoint.load_model(where), where)
    return settings, classes, model


def run_of(path: Path) -> Path:
    """The folder of the run that ``path``, itself or as one of its checkpoints, belongs to.

    Raises:
        CheckpointError: it is no run's.
    """
    for folder in (path, path.parent, path.resolve().parent.parent):
        if (folder / CONFIG).is_file():
            return folder
    raise CheckpointError(f"{path} is not a run: it has no {CONFIG}. Name a folder that distgrad finetune has written.")
