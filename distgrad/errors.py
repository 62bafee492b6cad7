"""The failures that a user can cause and cure; everything else is a bug and keeps its traceback.

A ``DistgradError`` is printed by the launcher as one message without a traceback, on one rank, and ends the job with a
non-zero status. API misuse inside a program raises what PyTorch raises there (``RuntimeError``, ``TypeError``,
``ValueError``, ``IndexError``).
"""

from __future__ import annotations


class DistgradError(Exception):
    """Base of every failure that comes from the user's input or environment. Its text names the cause and the cure."""


class ConfigError(DistgradError):
    """A configuration that cannot be used: unknown key, wrong type, impossible value."""


class DataError(DistgradError):
    """A data set or a file in it that cannot be used: missing folder, empty class, undecodable photo."""


class WeightsError(DistgradError):
    """Pretrained weights that cannot be found, fetched, verified or read."""


class CheckpointError(DistgradError):
    """A checkpoint that cannot be written, is damaged, or does not fit the model."""


class TrainingError(DistgradError):
    """Training that cannot go on, such as a loss that is not finite."""


class CommunicationError(DistgradError):
    """Ranks that do not agree, or a communicator that cannot be used."""
