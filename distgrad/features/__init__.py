"""Features of a frozen network: computed once for each sample, kept on disk, the same bits with and without."""

from __future__ import annotations

from .blocks import BLOCK
from .photos import VERSION, FeatureLoader, PhotoFeatures, content_digest, place_matters_to_any
from .store import FeatureStore, make_room

__all__ = [
    "BLOCK",
    "VERSION",
    "FeatureLoader",
    "FeatureStore",
    "PhotoFeatures",
    "content_digest",
    "make_room",
    "place_matters_to_any",
]
