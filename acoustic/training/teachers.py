"""Teachers: networks that are asked what they hear, so that the student learns to say the same.

A teacher is anything with a sample rate that turns waveforms (B, n) into (logits (B, T), embeddings (B, D)). It is
plugged in by path: a Python file with a class `Teacher`, or the folder of a `transformers` model. A converted OpenVINO
graph answers about three times faster than eager PyTorch on a CPU, so one is made where it gives the same numbers.
"""

from __future__ import annotations

import importlib.util
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr
import torch

from ..errors import SettingsError
from ..network.backends.openvino import has_bfloat16, runtime
from .config import TeacherSpec

TOLERANCES = {"f32": 1e-4, "bf16": 0.03}
"""by precision, the largest error of a converted graph (root mean square, as a share of the answers' deviation) with
which it is still the same teacher"""

_WHAT = "docs/training.md tells what a teacher is."

Answer = tuple[np.ndarray, np.ndarray]


class Teacher(Protocol):
    """waveform (B, n) float32 at `sample_rate` -> logits (B, T), embedding (B, D)"""

    def __call__(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...


@dataclass(frozen=True, slots=True)
class Plugged:
    """A teacher that was plugged in: `tags` name its logits; `n_frames` is the width of its network's mel where it has
    `mel` and `network` apart."""

    teacher: Any
    sample_rate: int
    tags: tuple[str, ...]
    n_frames: int | None


def load_teacher(file: Path, arguments: tuple[str, ...] = ()) -> Plugged:
    """The teacher defined in `file`: its class `Teacher`, SAMPLE_RATE in Hz, and names from its `tags` or `labels()`;
    or the `transformers` model in the folder `file`. SettingsError where there is none."""
    if file.is_dir():
        from .spectrogram_transformer import load_folder

        return load_folder(file)
    spec = importlib.util.spec_from_file_location(f"teacher_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise SettingsError(
            f"no teacher at {file}", "A teacher is a Python file with a class `Teacher` and SAMPLE_RATE."
        )
    module = importlib.util.module_from_spec(spec)
    with _a_persons_code(f"{file}: the teacher cannot be made"):
        spec.loader.exec_module(module)
        for name in ("Teacher", "SAMPLE_RATE"):
            if not hasattr(module, name):
                raise SettingsError(f"{file}: a teacher needs {name}", _WHAT)
        teacher = module.Teacher(*arguments)
        named = getattr(teacher, "tags", ())
        names = tuple(str(name) for name in (named if len(named) or not hasattr(module, "labels") else module.labels()))
        if not names:
            raise SettingsError(f"{file}: its logits have no names", _WHAT)
        return Plugged(teacher, int(module.SAMPLE_RATE), names, getattr(module, "N_FRAMES", None))


@contextmanager
def _a_persons_code(what: str) -> Iterator[None]:
    """Whatever a plugged-in file raises, as a SettingsError that begins with `what` and names the line."""
    try:
        yield
    except SettingsError:
        raise
    except (Exception, SystemExit) as error:  # a script's `sys.exit` would end the run without a word
        last = traceback.extract_tb(error.__traceback__)[-1]
        hint = "Install what it imports beside this program." if isinstance(error, ImportError) else _WHAT
        place = f"{Path(last.filename).name}, line {last.lineno}"
        raise SettingsError(f"{what}: {type(error).__name__}: {error} ({place})", hint) from error


def accelerate(plugged: Plugged, example: torch.Tensor, *, exact: bool = False) -> Callable[[np.ndarray], Answer]:
    """The teacher as a function on numpy batches of `example`'s shape: through OpenVINO if that agrees, else as it is;
    in bfloat16 where the processor computes in it, that is faster, and the answers are the same but for their last
    digits. `exact`: never in bfloat16, whose speed is measured and so not chosen the same way twice.

    A teacher with separate `mel` and `network` keeps its mel in torch and has only the network converted: code that
    cuts windows does not trace.
    """
    teacher = plugged.teacher
    split = plugged.n_frames is not None and hasattr(teacher, "mel") and hasattr(teacher, "network")

    @torch.no_grad()
    def eager(waveform: np.ndarray) -> Answer:
        logits, embedding = teacher(torch.from_numpy(waveform))
        return logits.numpy(), embedding.numpy()

    @torch.no_grad()
    def inputs(waveform: np.ndarray) -> np.ndarray:
        if not split:
            return waveform
        return teacher.mel(torch.from_numpy(waveform))[:, : plugged.n_frames].contiguous().numpy()

    with _a_persons_code(f"the teacher {type(teacher).__name__} cannot answer"):
        heard = inputs(example.numpy())
        expected = eager(example.numpy())
    _check(plugged, expected)
    hints = ("f32", "bf16") if not exact and has_bfloat16() else ("f32",)
    graphs = _openvino_graphs(teacher.network if split else teacher, torch.from_numpy(heard), hints)
    faithful = [g for hint, g in graphs.items() if _error(g(heard), expected) < TOLERANCES[hint]]
    if not faithful:
        return eager
    graph = min(faithful, key=lambda g: _seconds(g, heard))
    return lambda waveform: graph(inputs(waveform))


def _check(plugged: Plugged, answer: Answer) -> None:
    """SettingsError unless a teacher's answer is two tables of finite numbers, its logits one for each name."""
    logits, embedding = answer
    problem = ""
    if logits.ndim != 2 or embedding.ndim != 2 or len(logits) != len(embedding):
        problem = f"answers with arrays of the shapes {logits.shape} and {embedding.shape}, not (B, T) and (B, D)"
    elif logits.shape[1] != len(plugged.tags):
        problem = f"names {len(plugged.tags)} logits and gives {logits.shape[1]}"
    elif not (np.isfinite(logits).all() and np.isfinite(embedding).all()):
        problem = "answers noise with what are no numbers"
    if problem:
        raise SettingsError(f"the teacher {type(plugged.teacher).__name__} {problem}", _WHAT)


def _error(found: Answer, expected: Answer) -> float:
    """Root mean square of the difference, as a share of the answers' standard deviation: the larger of the two."""
    if any(a.shape != b.shape for a, b in zip(found, expected, strict=True)):
        return float("inf")
    return max(
        float(np.sqrt(np.square(a - b).mean()) / max(b.std(), 1e-9)) for a, b in zip(found, expected, strict=True)
    )


def _seconds(graph: Callable[[np.ndarray], Answer], heard: np.ndarray) -> float:
    """The faster of two calls."""
    taken = []
    for _ in range(2):
        begun = time.perf_counter()
        graph(heard)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _openvino_graphs(
    function: Callable[..., Any], example: torch.Tensor, hints: Sequence[str]
) -> dict[str, Callable[[np.ndarray], Answer]]:
    """`function` as compiled OpenVINO graphs by precision; none where OpenVINO is missing or cannot convert it."""

    class Traced(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return function(x)

    def running(compiled: Any) -> Callable[[np.ndarray], Answer]:
        def run(x: np.ndarray) -> Answer:
            out = compiled(x)
            return np.array(out[0]), np.array(out[1])

        return run

    try:
        openvino = runtime()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every shape that becomes a constant, which is meant
            model = openvino.convert_model(Traced(), example_input=example)
        core = openvino.Core()
        how = {"PERFORMANCE_HINT": "LATENCY"}
        return {h: running(core.compile_model(model, "CPU", {**how, "INFERENCE_PRECISION_HINT": h})) for h in hints}
    except Exception:  # whatever the converter cannot do, the eager teacher can
        return {}


# --- asking about waveforms of any length ---


def windows_of(samples: np.ndarray, window: int, hop: int) -> tuple[list[int], np.ndarray]:
    """Starts and windows (W, window) of a waveform (n,); one that is shorter than a window is repeated."""
    if len(samples) < window:
        samples = np.tile(samples, -(-window // max(1, len(samples))))
    starts = grid(len(samples), window, hop)
    return starts, np.stack([samples[start : start + window] for start in starts]).astype(np.float32, copy=False)


def grid(n: int, window: int, hop: int) -> list[int]:
    """Window starts: every hop, and one that ends with the track if more than a sixth of a window were left over."""
    starts = list(range(0, n - window + 1, hop))
    if n - (starts[-1] + window) > window / 6:
        starts.append(n - window)
    return starts


class Listener:
    """A teacher that is asked about one crop after the other, each of `n` samples at `sample_rate`: the mean of what it
    says of the windows side by side that the crop holds."""

    def __init__(self, spec: TeacherSpec, data: Path, n: int, sample_rate: int) -> None:
        plugged = load_teacher(data / spec.file, spec.arguments)
        self.sample_rate = sample_rate
        self.teacher_rate = plugged.sample_rate
        self.n_window = round(spec.window_s * plugged.sample_rate)
        example = np.random.default_rng(0).normal(0, 0.1, n).astype(np.float32)
        self._ask = accelerate(plugged, torch.from_numpy(self._windows(example)), exact=True)

    def __call__(self, samples: np.ndarray) -> Answer:
        """Logits (T,) and embedding (D,) of a crop (n,)."""
        logits, embedding = self._ask(self._windows(samples))
        return logits.mean(axis=0), embedding.mean(axis=0)

    def _windows(self, samples: np.ndarray) -> np.ndarray:
        heard = soxr.resample(samples, self.sample_rate, self.teacher_rate)
        return windows_of(heard, self.n_window, self.n_window)[1]
