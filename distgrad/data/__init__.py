"""Data: files to batches. ``ImageFolder``, transforms, samplers that share work among ranks, the loader."""

from __future__ import annotations

from distgrad.data import transforms
from distgrad.data.dataset import Dataset, Subset, TensorDataset, random_split
from distgrad.data.decode import load_image
from distgrad.data.image_folder import ImageFolder
from distgrad.data.loader import DataLoader, default_collate
from distgrad.data.photo_cache import PhotoCache
from distgrad.data.sampler import (
    BatchSampler,
    DistributedSampler,
    GlobalBatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
)
from distgrad.data.stream import sample_generator
from distgrad.registry import no_attribute

__all__ = [
    "BatchSampler",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "GlobalBatchSampler",
    "ImageFolder",
    "PhotoCache",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "TensorDataset",
    "default_collate",
    "load_image",
    "random_split",
    "sample_generator",
    "transforms",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.data'", name, __all__)
