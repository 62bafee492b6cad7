"""The checkpoints of one run: which is the last, which the best, and which may go.

    runs/NAME/last -> checkpoints/step-00000120      a symbolic link, replaced atomically
    runs/NAME/best -> checkpoints/step-00000080
    runs/NAME/checkpoints/step-00000080/             one folder a checkpoint, never changed once it has its name
    runs/NAME/checkpoints/step-00000120/

`runs/NAME/best/model.safetensors` is thus a name that always works and always reads a whole file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from . import atomic
from .encoding import Array
from .format import MANIFEST, cannot_write, save

_FOLDER = "checkpoints"
_STEP = re.compile(r"step-(\d+)(?:\.(\d+))?")


class CheckpointManager:
    """Writes the checkpoints of a run and keeps the newest and the best of them. Only one rank may use it.

    Args:
        run: the run's folder; it is made with the first checkpoint.
        keep: how many of the newest checkpoints stay on disk; the best one stays besides.
    """

    def __init__(self, run: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.run = Path(run)
        self.keep = keep

    @property
    def last(self) -> Path | None:
        """The newest checkpoint; ``None`` before the first."""
        return self._existing("last")

    @property
    def best(self) -> Path | None:
        """The best checkpoint; ``None`` before the first that was called best."""
        return self._existing("best")

    def save(self, step: int, model_state: Mapping[str, Array], training_state: Any, *, best: bool = False) -> Path:
        """Writes a checkpoint, makes it the last one (and the best), then removes those that are no longer kept.

        A kill at any instant leaves ``last`` and ``best`` at whole checkpoints, the new or the previous ones.

        Args:
            step: optimizer steps done; the folder carries the number.
            model_state: name to array.
            training_state: nested dicts, lists and tuples of arrays and plain values.
            best: make it the best as well.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: it cannot be written, as on a full disk; the previous checkpoint is untouched and no part
                of the new one is left.
        """
        previous = self.run / "last" if self.last is not None else None
        directory = self.run / _FOLDER / f"step-{step:08d}"
        try:
            self._sweep()
            directory = self._free_name(directory)
        except OSError as error:
            raise cannot_write(directory, None, error, previous) from error
        save(directory, model_state, training_state, previous=previous)
        try:
            # `best` first: killed between the two, the run goes on from the older `last`, meets this step again and
            # finds it best again. The other way round, a resumed run would believe in a best that no name leads to.
            for name in ("best", "last") if best else ("last",):
                atomic.point(self.run / name, f"{_FOLDER}/{directory.name}")
            self._prune()
        except OSError as error:
            if directory.name not in self._referenced():
                atomic.remove(directory)
            raise cannot_write(directory, None, error, previous) from error
        return directory

    def _existing(self, name: str) -> Path | None:
        link = self.run / name
        return link if (link / MANIFEST).is_file() else None

    def _referenced(self) -> set[str]:
        return {os.path.basename(os.readlink(link)) for link in self._links() if link.is_symlink()}

    def _links(self) -> tuple[Path, Path]:
        return self.run / "last", self.run / "best"

    def _sweep(self) -> None:
        """Removes what a killed writer left."""
        if (self.run / _FOLDER).is_dir():
            for entry in (self.run / _FOLDER).iterdir():
                if entry.name.startswith(atomic.TEMPORARY):
                    atomic.remove(entry)

    def _free_name(self, directory: Path) -> Path:
        """The name, or the same with a number when the checkpoint of that name is still somebody's last or best."""
        referenced = self._referenced()
        name, number = directory.name, 1
        while directory.name in referenced:
            directory = directory.with_name(f"{name}.{number}")
            number += 1
        if directory.exists():  # complete, but the writer was killed before it became the last
            atomic.discard(directory)
        return directory

    def _prune(self) -> None:
        referenced = self._referenced()
        entries = [(_STEP.fullmatch(entry.name), entry) for entry in (self.run / _FOLDER).iterdir()]
        ordered = sorted((int(match[1]), int(match[2] or 0), entry) for match, entry in entries if match)
        for _, _, entry in ordered[: -self.keep]:
            if entry.name not in referenced:
                atomic.discard(entry)


def locate(path: str | os.PathLike[str], which: str = "best") -> Path:
    """The checkpoint that a user means by a path.

    Args:
        path: a run's folder, or a checkpoint in it such as ``runs/NAME/last``.
        which: "best" or "last", of a run; where there is no best one, the last is meant.

    Raises:
        CheckpointError: neither is there.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"there is no run at {path}; name a folder that `distgrad finetune` wrote.")
    for name in dict.fromkeys((which, "last")):
        if (path / name / MANIFEST).is_file():
            return path / name
    raise CheckpointError(f"{path} has no checkpoint yet: there is neither {path / which} nor {path / 'last'}.")
