"""Data: files to batches. ``ImageFolder``, transforms, samplers that share work among ranks, the loader."""

from __future__ import annotations

from distgrad.data import transforms
from distgrad.data.dataset import Dataset, Subset, TensorDataset, random_split
from distgrad.data.image_folder import ImageFolder, load_image
from distgrad.data.loader import DataLoader, default_collate
from distgrad.data.sampler import (
    BatchSampler,
    DistributedSampler,
    GlobalBatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
)
from distgrad.data.stream import sample_generator

__all__ = [
    "BatchSampler",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "GlobalBatchSampler",
    "ImageFolder",
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
