"""Kinds of command line arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def at_least(minimum: int) -> Callable[[str], int]:
    """For ``type=`` of an argument: a whole number from ``minimum`` on."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least {minimum}")
        return number

    return read
