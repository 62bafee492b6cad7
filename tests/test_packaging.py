"""What an installed distgrad consists of."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_installed() -> None:
    """A folder that setuptools is not told of is there in a checkout, and missing where distgrad is installed."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "distgrad").rglob("__init__.py")}
    assert set(listed) == found | {"distgrad.launch"}
