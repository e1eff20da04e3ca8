"""What the NVIDIA GPUs do now, read through pynvml (the package nvidia-ml-py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MB = 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU now; None for what its driver does not tell."""

    name: str
    utilization_percent: float | None
    memory_used_mb: float | None
    memory_total_mb: float | None
    temperature_c: float | None
    power_w: float | None


class Gpus:
    """NVIDIA's management library; started at the first look, so that importing this costs nothing."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._note: str | None = None

    def read(self) -> tuple[tuple[Gpu, ...], str]:
        """(GPUs, why there are none)."""
        if self._note is None:
            self._note = self._start()
        if self._note:
            return (), self._note
        nvml = self._nvml
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            gpus = tuple(self._gpu(handle) for handle in handles)
        except nvml.NVMLError as error:  # a driver that is updated or a card that is lost while we run
            return (), f"the NVIDIA driver does not answer: {error}"
        return gpus, "" if gpus else "no NVIDIA GPU in this machine"

    def _start(self) -> str:
        """Why there is nothing to read; empty where there is."""
        try:
            import pynvml
        except ImportError:
            return "no GPU readings: the package nvidia-ml-py is not installed"
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return f"no NVIDIA GPU, or no driver for it: {error}"
        self._nvml = pynvml
        return ""

    def _gpu(self, handle: Any) -> Gpu:
        nvml = self._nvml
        name = nvml.nvmlDeviceGetName(handle)
        memory = self._asked(nvml.nvmlDeviceGetMemoryInfo, handle)
        load = self._asked(nvml.nvmlDeviceGetUtilizationRates, handle)
        temperature = self._asked(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        milliwatts = self._asked(nvml.nvmlDeviceGetPowerUsage, handle)
        return Gpu(
            name=name.decode() if isinstance(name, bytes) else name,  # bytes before nvidia-ml-py 12
            utilization_percent=None if load is None else float(load.gpu),
            memory_used_mb=None if memory is None else memory.used / MB,
            memory_total_mb=None if memory is None else memory.total / MB,
            temperature_c=None if temperature is None else float(temperature),
            power_w=None if milliwatts is None else milliwatts / 1_000.0,
        )

    def _asked(self, question: Any, *arguments: Any) -> Any:
        """The driver's answer, None where this card has none (a slice of a card, a virtual one, an old one)."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError:
            return None
