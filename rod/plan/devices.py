"""Ceilings of devices."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

DeviceName = Literal["H100", "H200", "A100", "RTX4090", "CPU"]


@dataclass(frozen=True)
class Device:
    """Memory in bytes, and what is done in a second at best.

    Attributes:
        memory: Bytes of one device.
        half: Operations in bfloat16, dense.
        single: Operations in float32; on GPUs in TF32, as ``rod`` sets torch.
        bandwidth: Bytes moved.
    """

    memory: float
    half: float
    single: float
    bandwidth: float


DEVICES: dict[str, Device] = {
    # The makers' data sheets: SXM modules with 80 and 141 GB, dense operations.
    "H100": Device(80e9, 989e12, 494e12, 3.35e12),
    "H200": Device(141e9, 989e12, 494e12, 4.8e12),
    "A100": Device(80e9, 312e12, 156e12, 2.04e12),
    "RTX4090": Device(24e9, 165e12, 82.6e12, 1.01e12),
}


def device_of(name: DeviceName) -> Device:
    """A device by its name; the CPU of this machine is measured."""
    return this_cpu() if name == "CPU" else DEVICES[name]


def this_cpu(size: int = 1024) -> Device:
    """This machine: its memory, and a product of matrices and a copy, measured by the best of three."""
    memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    source = torch.ones(2**24)

    def rate(dtype: torch.dtype) -> float:
        one = torch.ones(size, size, dtype=dtype)
        return 2 * size**3 / _fastest(lambda: one @ one)

    copied = 2 * source.nbytes / _fastest(source.clone)
    return Device(memory, rate(torch.bfloat16), rate(torch.float32), copied)


def _fastest(work: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
