"""Supervised batches: examples of similar length, padded or packed."""

from datamodules.training.packing import Example, pack, pad
from datamodules.training.sampler import LengthGroupedBatchSampler

__all__ = ["Example", "LengthGroupedBatchSampler", "pack", "pad"]
