"""What was measured -> JSON for the Profiler tab's script: pure functions. Never NaN; names as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..records import printable
from . import uploads, wording

if TYPE_CHECKING:
    from ..workstation.performance import Reading
    from ..workstation.what_if import Difference, Side

STAGES = (
    "load_audio",
    "mel_spectrogram",
    "preprocess",
    "wait",
    "inference",
    "postprocess",
    "descriptors",
    "cache",
)
"""in the order in which a song goes through them, which is the order of bars and legend"""
COMPILED = ("first_ms", "eager_ms", "compiled_ms", "cosine")
"""what is measured of each batch size that torch.compile has compiled"""


def stage_names() -> list[list[str]]:
    """[stage, what a person reads]."""
    return [[stage, wording.short_stage(stage)] for stage in STAGES]


def reading(one: Reading) -> dict[str, Any]:
    found = one.bottleneck
    return {
        "at": one.at,
        "busy": one.busy,
        "n_runs": one.n_runs,
        "runs": [
            {
                "number": run.number,
                "name": uploads.shown_name(run.label),
                "path": uploads.on_one_line(run.label),
                "cached": run.cached,
                "stages": {stage: round(ms, 3) for stage, ms in run.timings_ms.items()},
            }
            for run in one.runs
        ],
        "samples": [_sample(sample) for sample in one.samples],
        "percentiles": [
            {"stage": stage, "n": p.n, "p50": round(p.p50, 3), "p90": round(p.p90, 3), "p99": round(p.p99, 3)}
            for stage, p in one.percentiles.items()
        ],
        "throughput": {
            "songs_per_s": one.throughput.songs_per_s,
            "n_songs": one.throughput.n_songs,
            "over_s": one.throughput.over_s,
        },
        "load": dict(one.load),
        "n_requests": one.n_requests,
        "answers_known": one.answers_known,
        "cache": None
        if one.cache is None
        else {"hit_rate": one.cache["hit_rate"], "memory_mb": one.cache["memory_mb"]},
        "batch_sizes": [[size, n] for size, n in sorted(one.batch_sizes.items())],
        "backend": backend(one.backend),
        "bottleneck": None
        if found is None
        else {"sentence": found.sentence, "stage": found.stage, "share": found.share, "n_runs": found.n_runs},
    }


def span(one: Any) -> dict[str, Any]:
    return {
        "name": printable(one.name),
        "label": wording.short_stage(one.name),
        "start_ms": round(one.start_ms, 3),
        "ms": round(one.duration_ms, 3),
        "depth": one.depth,
        "thread": printable(one.thread),
    }


def backend(described: Mapping[str, Any]) -> dict[str, Any]:
    """`Backend.describe()` as far as it tells: what it leaves out is empty here."""
    candidates = [one for one in described.get("candidates") or () if isinstance(one, Mapping)]
    return {
        "name": str(described.get("name", "")),
        "device": str(described.get("device", "")),
        "device_name": str(described.get("device_name") or ""),
        "precision": str(described.get("precision", "")),
        "chosen": str(described.get("chosen") or ""),
        "state": str(described.get("state") or ""),
        "n_threads": described.get("n_threads"),
        "measured_at": str(described.get("measured_at") or ""),
        "compiled": _compiled(described.get("compiled")),
        "graphs": _graphs(described.get("graphs")),
        "tensorrt_error": _error(described.get("tensorrt") or {}),
        "candidates": [
            {
                "backend": str(one.get("backend", "")),
                "precision": str(one.get("precision", "")),
                "state": str(one.get("state", "")),
                "ms": {str(size): ms for size, ms in (one.get("ms") or {}).items() if _is_number(ms)},
                "cosine": one.get("cosine") if _is_number(one.get("cosine")) else None,
                "note": str(one.get("note") or ""),
            }
            for one in candidates
        ],
    }


def _compiled(told: Any) -> dict[str, Any] | None:
    """What became of each batch size of torch.compile; None where nothing is compiled."""
    if not isinstance(told, Mapping):
        return None
    return {
        "sizes": [
            {
                "size": int(size),
                "state": str(one.get("state", "")),
                "n_calls": int(one.get("n_calls", 0)),
                **{name: one[name] if _is_number(one.get(name)) else None for name in COMPILED},
            }
            for size, one in (told.get("sizes") or {}).items()
        ],
        "error": _error(told),
    }


def _graphs(told: Any) -> dict[str, Any] | None:
    """The batch sizes of recorded CUDA graphs; None where none are recorded."""
    if not isinstance(told, Mapping):
        return None
    return {"sizes": [int(size) for size in told.get("sizes") or ()], "error": _error(told)}


def _error(told: Mapping[str, Any]) -> str:
    """Why it is not what answers; empty where nothing failed."""
    return printable(str(told.get("error") or ""))


def difference(found: Difference) -> dict[str, Any]:
    genre, before, after = found.moved
    return {
        "name": uploads.shown_name(found.file),
        "n_rounds": found.n_rounds,
        "faster": found.faster,
        "moved": {"genre": genre, "before": before, "after": after},
        "sides": [_side(side) for side in found.sides],
    }


def _side(side: Side) -> dict[str, Any]:
    told = backend(side.backend)
    return {
        "backend": told["name"],
        "precision": told["precision"],
        "ready": side.ready,
        "notes": [printable(note) for note in side.notes],
        "n_segments": side.n_segments,
        "denoise": side.choice.denoise,
        "medians_ms": {stage: round(ms, 3) for stage, ms in side.medians_ms.items()},
        "genre": side.top_genre,
        "confidence": side.top_confidence,
        "needs_review": side.needs_review,
    }


def _sample(sample: Any) -> dict[str, Any]:
    now = sample.resources
    return {
        "number": sample.number,
        "at": sample.at,
        "cores": [round(share, 1) for share in now.cpu_percent_by_core],
        "cpu": round(now.process_cpu_percent, 1),
        "workers_cpu": round(now.workers_cpu_percent, 1),
        "n_workers": now.n_workers,
        "rss_mb": round(now.process_rss_mb, 1),
        "workers_rss_mb": round(now.workers_rss_mb, 1),
        "available_mb": round(now.memory_available_mb, 1),
        "total_mb": round(now.memory_total_mb, 1),
        "read_mb_per_s": _rounded(sample.read_mb_per_s),
        "written_mb_per_s": _rounded(sample.written_mb_per_s),
        "load": dict(sample.load),
        "gpus": [
            {
                "name": printable(gpu.name),
                "utilization_percent": gpu.utilization_percent,
                "memory_used_mb": gpu.memory_used_mb,
                "memory_total_mb": gpu.memory_total_mb,
                "temperature_c": gpu.temperature_c,
                "power_w": gpu.power_w,
            }
            for gpu in now.gpus
        ],
        "gpu_note": printable(now.gpu_note),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
