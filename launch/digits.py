"""scikit-learn's handwritten digits as PNG files in class folders, so that the quickstart takes the real path.

1797 pictures of 8 x 8 grey values from 0 to 16 (Alpaydin and Kaynak, 1998), which come with the package.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from distgrad.errors import DataError

_VALIDATION = 5  # every fifth picture, which no training sees


def write(folder: Path) -> None:
    """Writes ``folder/train`` and ``folder/val``, one folder a digit, unless they are there. All or nothing.

    Raises:
        DataError: scikit-learn is not installed, or the place is not writable.
    """
    if folder.is_dir():
        return
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            'data.dataset = "digits" takes its pictures from scikit-learn, which is not installed: '
            "pip install 'distgrad[quickstart]'"
        ) from None
    bundle = load_digits()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for number, (picture, digit) in enumerate(zip(bundle.images, bundle.target, strict=True)):
                part = "val" if number % _VALIDATION == 0 else "train"
                place = temporary / part / str(digit)
                place.mkdir(parents=True, exist_ok=True)
                grey = (picture * (255 / 16)).round().astype(np.uint8)
                Image.fromarray(grey).save(place / f"{number:04d}.png")
            temporary.chmod(0o755)
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster, with the same pictures
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(f"cannot write the digits to {folder}: {error.strerror}. Start where you may write.") from error
