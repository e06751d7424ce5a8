"""What the machine offers, asked at run time: device, arithmetic, attention kernel.

Library only; nothing here changes what is computed beyond rounding.
"""

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntulm.errors import UserError

PROCESS = "LOCAL_RANK"  # torchrun's number of this process on this machine
# glibc's malloc.h: parameters of mallopt.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def choose_device() -> torch.device:
    """The GPU if there is one, else the CPU, whose freed memory is then kept; each process of torchrun has its own GPU.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    if torch.cuda.is_available():
        return _own_gpu(os.environ[PROCESS]) if PROCESS in os.environ else torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


def _own_gpu(process: str) -> torch.device:
    """The GPU of one of several processes, from now on the one that is meant where none is named."""
    number, there = int(process), torch.cuda.device_count()
    if number >= there:
        raise UserError(f"process {number + 1} of this machine finds {there} GPUs; start at most {there} processes")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, where it would hand large arrays back to the kernel each time.

    Training on a CPU is about 1.15 times as fast, in no more memory at its peak. Elsewhere than on glibc: nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones there; emulated ones (AVX2) are slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def has_int8() -> bool:
    """Whether the processor has units for products of bytes (VNNI, AMX); emulated ones are no faster than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """Autocast to bfloat16 where the hardware has it; weights, losses and the optimizer stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if has_bf16(device) else nullcontext()


def attention_kernel(device: torch.device) -> str:
    """The attention implementation: on a CPU plain products are a little ahead of the fused kernel at post lengths."""
    return "sdpa" if device.type == "cuda" else "eager"


def attention_without_plans(device: torch.device) -> AbstractContextManager:
    """Attention by any kernel but cuDNN's, which makes a plan for every new shape of a batch (docs/benchmarks-gpu.md).

    On an H200 that took a fifth of the time of fine-tuning. On a CPU nothing changes.
    """
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def to_device(array: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for the device."""
    return array.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else array
