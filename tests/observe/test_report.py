from __future__ import annotations

import math

import pytest

from distgrad.observe import epoch_line, summary
from distgrad.observe.report import percent


def line(**changes: object) -> str:
    values = {
        "train_loss": 0.43121, "val_loss": 0.29874, "val_accuracy": 0.954, "lr": 0.025,
        "images_per_second": 309.6, "seconds": 8.2, **changes,
    }  # fmt: skip
    return epoch_line(2, 10, **values)  # type: ignore[arg-type]


def test_epoch_line() -> None:
    assert line() == (
        "epoch  2/10 · train loss 0.4312 · val loss 0.2987 · val acc 95.40 % · lr 0.025 · 310 images/s · 0:08"
    )
    assert " · val acc 95.40 % (best) · " in line(best=True)
    assert line(skipped=1).endswith(" · 1 photo skipped")
    assert line(skipped=12).endswith(" · 12 photos skipped")
    assert "train loss nan" in line(train_loss=math.nan)
    assert "lr 1.23e-05" in line(lr=1.234e-5)


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0.00 %"), (0.954, "95.40 %"), (1, "100.00 %"), (0.99999, "99.99 %"), (2 / 3, "66.67 %")]
)
def test_percent(part: float, text: str) -> None:
    assert percent(part) == text


def test_summary() -> None:
    text = summary(
        "runs/photos",
        val_accuracy=0.97,
        best_accuracy=0.975,
        best_epoch=2,
        epochs=3,
        steps=118,
        world_size=2,
        seconds=72,
    )
    assert (
        text
        == """\
done: 3 epochs, 118 steps on 2 ranks in 1:12
val accuracy 97.00 %, best 97.50 % in epoch 2
  best model       runs/photos/best/model.safetensors
  last checkpoint  runs/photos/last
  metrics          runs/photos/metrics.jsonl
  config           runs/photos/config.toml
next: distgrad predict runs/photos PHOTO..."""
    )


def test_summary_of_one() -> None:
    first = summary(
        "runs/a", val_accuracy=1, best_accuracy=1, best_epoch=1, epochs=1, steps=9, world_size=1, seconds=3700
    ).splitlines()[0]
    assert first == "done: 1 epoch, 9 steps on 1 rank in 1:01:40"
