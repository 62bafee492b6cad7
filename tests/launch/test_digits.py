"""The quickstart's pictures: real files, all or nothing, the same every time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgrad.data import ImageFolder
from distgrad.errors import DataError
from distgrad.launch import digits


def test_writes_every_digit_once(tmp_path: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits.write(tmp_path / "data" / "digits")
    train, val = (ImageFolder(tmp_path / "data" / "digits" / part) for part in ("train", "val"))
    assert train.classes == val.classes == [str(digit) for digit in range(10)]
    assert (len(train), len(val)) == (1437, 360)
    bundle = datasets.load_digits()
    path, label = val.samples[0]
    number = int(Path(path).stem)
    assert bundle.target[number] == label
    assert np.array_equal(np.round(np.asarray(Image.open(path)) * (16 / 255)), bundle.images[number])
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["digits"], "nothing is left behind"

    kept = Path(path).stat().st_mtime_ns
    digits.write(tmp_path / "data" / "digits")
    assert Path(path).stat().st_mtime_ns == kept, "what is there stays"


def test_without_scikit_learn_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'distgrad\[quickstart\]'"):
        digits.write(tmp_path / "digits")
    assert not list(tmp_path.iterdir())
