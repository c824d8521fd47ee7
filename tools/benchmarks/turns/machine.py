"""The machine and the packages that a report is about."""

import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess

# What processors have for bfloat16 and int8.
UNITS = ("avx512_bf16", "amx_bf16", "avx512_vnni", "amx_int8")
PACKAGES = (
    *("keras-bridgetower", "keras", "keras-hub", "transformers", "torch"),
    *("jax", "tensorflow", "onnxruntime", "openvino", "numpy"),
)


def gpu():
    """Name, memory and driver of the first GPU that processes see, or None."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    if shutil.which("nvidia-smi") is None:
        return None
    fields = "--query-gpu=name,memory.total,driver_version"
    told = subprocess.run(
        ["nvidia-smi", fields, "--format=csv,noheader"],
        capture_output=True,
        text=True,
    )
    lines = told.stdout.strip().splitlines()
    return lines[0] if told.returncode == 0 and lines else None


def processor():
    """The processor, its cores and its units for other precisions."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [x.partition(": ")[2] for x in lines if x.startswith("model name")]
    flags = next((x.split() for x in lines if x.startswith("flags")), [])
    units = [name for name in UNITS if name in flags]
    told = ", ".join(units) or "no units for bfloat16"
    name = models[0] if models else platform.processor()
    threads = os.environ.get("OMP_NUM_THREADS")
    limit = f", OMP_NUM_THREADS={threads}" if threads else ""
    return f"{name}, {os.cpu_count()} cores, {told}{limit}"


def versions():
    """The installed packages with their versions, in one line."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([f"Python {platform.python_version()}", *found])
