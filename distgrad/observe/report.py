"""The lines that people read: one an epoch, and where everything is at the end."""

from __future__ import annotations

import os
from pathlib import Path

from .progress import duration


def epoch_line(
    epoch: int,
    epochs: int,
    *,
    train_loss: float,
    val_loss: float,
    val_accuracy: float,
    lr: float,
    images_per_second: float,
    seconds: float,
    skipped: int = 0,
    best: bool = False,
) -> str:
    """One epoch in one line.

    Args:
        epoch: counted from 1.
        epochs: how many there will be.
        train_loss: mean over the samples of the epoch.
        val_loss: mean over the validation samples.
        val_accuracy: part of the validation samples that are right, 0 to 1.
        lr: learning rate of the epoch's last step.
        images_per_second: training images over all ranks.
        seconds: the epoch's time, evaluation included.
        skipped: photos that could not be decoded; not mentioned when 0.
        best: whether it is the best epoch up to now.
    """
    parts = [
        f"epoch {epoch:>{len(str(epochs))}}/{epochs}",
        f"train loss {train_loss:.4f}",
        f"val loss {val_loss:.4f}",
        f"val acc {percent(val_accuracy)}{' (best)' if best else ''}",
        f"lr {lr:.3g}",
        f"{images_per_second:.0f} images/s",
        duration(seconds),
    ]
    if skipped:
        parts.append(f"{skipped} {'photo' if skipped == 1 else 'photos'} skipped")
    return " · ".join(parts)


def summary(
    run: str | os.PathLike[str],
    *,
    val_accuracy: float,
    best_accuracy: float,
    best_epoch: int,
    epochs: int,
    steps: int,
    world_size: int,
    seconds: float,
) -> str:
    """The end of a run in a few lines: how good, how long, and where things are.

    Args:
        run: the run's folder.
        val_accuracy: of the last epoch, 0 to 1.
        best_accuracy: of the best epoch, 0 to 1.
        best_epoch: counted from 1.
        epochs: how many were trained, those before a resume included.
        steps: optimizer steps in all.
        world_size: number of ranks.
        seconds: of this process, start to end.
    """
    run = Path(run)
    ranks = f"{world_size} rank{'s' if world_size > 1 else ''}"
    places = {
        "best model": run / "best" / "model.safetensors",
        "last checkpoint": run / "last",
        "metrics": run / "metrics.jsonl",
        "config": run / "config.toml",
    }
    width = max(map(len, places))
    return "\n".join(
        [
            f"done: {epochs} epoch{'s' if epochs > 1 else ''}, {steps} steps on {ranks} in {duration(seconds)}",
            f"val accuracy {percent(val_accuracy)}, best {percent(best_accuracy)} in epoch {best_epoch}",
            *(f"  {name:<{width}}  {place}" for name, place in places.items()),
            f"next: distgrad predict {run} PHOTO...",
        ]
    )


def percent(part: float) -> str:
    """0.954 as ``95.40 %``; never rounded up to 100 %."""
    text = f"{100 * part:.2f}"
    return f"{'99.99' if text == '100.00' and part < 1 else text} %"
