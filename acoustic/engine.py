"""The one place where stages are chained: OptimizedAudioClassifier.

    load_audio -> mel_spectrogram -> preprocess -> (wait) -> inference -> postprocess

Decoding runs in a pool of threads; the network runs in one lane, which fills its batches across files. The stages know
neither cache nor profiler: both are wrapped around them here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .cache import Cache, make_key
from .errors import AcousticError, AudioError, InternalError, SettingsError, StoppedError, StorageError
from .lane import InferenceLane
from .network import backends
from .network.registry import Registry
from .profiler import Profiler, Trace, current, span, tracing
from .records import (
    Analysis,
    AudioInfo,
    AudioWarning,
    CacheEntry,
    Descriptors,
    Failure,
    Personal,
    Segments,
    SegmentSpec,
    Votes,
)
from .settings import PROJECT_ROOT, Settings
from .signal import audio, descriptors, enhance, segments
from .signal.mel import log_mel, normalize
from .verdict.decision import decide

EMBEDDED_MODEL = "mel-vit-small"
CACHE_VERSION = 1
"""raised when a stage's numbers change, so that older entries are not found any more"""
DESCRIBED_S = 30.0
"""length of the middle part of a track from which its descriptors are measured"""
VOCAL_TAGS = ("Singing", "Male singing", "Female singing", "Child singing", "Choir", "Rapping", "Chant", "Vocal music")
PathLike = str | os.PathLike[str]
OnStage = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a file gave before the verdict: its votes with all that must be kept beside them."""

    votes: Votes
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    duration_s: float
    warnings: tuple[AudioWarning, ...]
    info: AudioInfo
    cached: bool


def model_folders(settings: Settings) -> tuple[Path, Path]:
    """Where models are looked for: those that ship, then the person's own."""
    return PROJECT_ROOT / "models", settings.data_folder() / "models"


class OptimizedAudioClassifier:
    """File in, Analysis out. Safe to use from several threads; close it (or use `with`) to stop its threads.

    `model_path` is a model's name or folder, empty for the embedded one; `device` "auto", "cpu", "cuda" or "mps";
    `use_fp16` allows half precision where the device has it in hardware; `batch_size` is the most segments a network
    call takes; `cache` False keeps nothing. Raises ModelError or BackendError if it cannot be set up as asked.

    `personal` may be set at any time: from the next verdict on it is what a person taught that reads the votes. The
    cache keeps votes, so nothing is asked of the network again.
    """

    def __init__(
        self,
        model_path: PathLike = "",
        device: str = "",
        use_fp16: bool = True,
        batch_size: int = 0,
        *,
        settings: Settings | None = None,
        cache: bool | Cache = True,
        compile: bool = False,
        n_threads: int | None = None,
    ) -> None:
        self.settings = settings or Settings.load()
        self.batch_size = batch_size or self.settings.batch_size
        if self.batch_size < 1:
            raise SettingsError(f"batch_size = {self.batch_size}; at least 1 segment must go through the network")
        wanted = model_path if isinstance(model_path, Path) else os.fspath(model_path)
        registry = Registry(model_folders(self.settings))
        network, self.card = registry.load(wanted or self.settings.model or EMBEDDED_MODEL)
        device = backends.choose_device(device or self.settings.device)
        self.backend = backends.create(network, device, use_fp16=use_fp16, compile=compile, n_threads=n_threads)
        self.personal: Personal | None = None
        self.profiler = Profiler()
        self.cache = cache if isinstance(cache, Cache) else self._new_cache() if cache else None
        self.segment_spec = self._segment_spec()
        self._versions = tuple(sorted(audio.decoders().items()))
        self._lane = InferenceLane(self.backend, self.batch_size)
        self._pool = ThreadPoolExecutor(self.settings.decode_workers, thread_name_prefix="decode")
        self._closing = threading.Event()
        self._count_lock = threading.Lock()
        self._n_requests = 0
        self._n_cached = 0

    def _new_cache(self) -> Cache:
        return Cache(self.settings.cache_folder(), self.settings.cache_mb, self.settings.cache_entries)

    def _segment_spec(self) -> SegmentSpec:
        changes: dict[str, Any] = {}
        if self.settings.n_segments:
            changes["n_segments"] = self.settings.n_segments
        if self.settings.segment_mode:
            changes["mode"] = self.settings.segment_mode
        return dataclasses.replace(self.card.segments, **changes)

    def __enter__(self) -> OptimizedAudioClassifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the files that are being analysed, stop those that wait, and end the threads. May be called twice."""
        self._closing.set()
        self._pool.shutdown(wait=True)
        self._lane.close()
        self.backend.close()

    @property
    def labels(self) -> tuple[str, ...]:
        """The genres of a verdict: the model's, and then a person's own."""
        personal = self.personal
        return personal.labels if personal is not None else self.card.labels

    def warm_up(self, *, described: bool = True) -> None:
        """Run everything once that is slow the first time: filter bank, network, and librosa's descriptors where
        they are wanted."""
        n = self.card.mel.n_samples
        noise = np.random.default_rng(0).normal(0, 0.1, (1, n)).astype(np.float32)
        self._lane.submit(normalize(log_mel(noise, self.card.mel), self.card.mel).numpy()).result()
        if described:
            descriptors.warm_up()

    # --- the public face ---

    def analyze(self, path: PathLike, *, descriptors: bool = False) -> Analysis:
        """The analysis of one file. Raises AudioError for a file that cannot be analysed."""
        return self._analyze(os.fspath(path), descriptors, _nobody)

    def analyze_many(
        self, paths: Sequence[PathLike], *, descriptors: bool = False, on_stage: OnStage | None = None
    ) -> Iterator[tuple[int, Analysis | Failure]]:
        """(index into `paths`, its Analysis or Failure) as they finish; a bad file never stops the rest.

        `on_stage(index, stage)` is called from the working threads. Only a few files are in flight at a time, so a
        million paths cost no more memory than ten; a caller that stops iterating stops the work.
        """
        todo = iter(enumerate(paths))
        running: dict[Future[Analysis | Failure], int] = {}
        in_flight = self.settings.decode_workers + 2

        def start_more() -> None:
            while len(running) < in_flight and (following := next(todo, None)) is not None:
                index, path = following
                told = partial(on_stage, index) if on_stage else _nobody
                running[self._start(os.fspath(path), descriptors, told)] = index

        try:
            start_more()
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield running.pop(future), future.result()
                start_more()
        finally:
            for future in running:
                future.cancel()

    async def process_audio_batch(self, paths: Sequence[PathLike], top_k: int = 5) -> list[dict[str, Any]]:
        """The JSON contract's object of every path, in order; one bad file never fails the rest."""

        def run() -> list[dict[str, Any]]:
            done = dict(self.analyze_many(paths))
            return [done[i].to_dict(top_k) for i in range(len(paths))]

        return await asyncio.to_thread(run)

    def describe(self, path: PathLike) -> Descriptors:
        """The descriptors of one file, with vocal presence from its tag votes. Raises AudioError."""
        name = os.fspath(path)
        digest = self._digest(name)
        return self._descriptors(name, digest, self._heard(name, digest, _nobody))

    def get_stats(self) -> dict[str, Any]:
        """Totals since the start: requests, mean times in ms, cache hits, and how the network is executed."""
        means = self.profiler.means_ms()
        with self._count_lock:
            n, hits = self._n_requests, self._n_cached
        return {
            "total_requests": n,
            "avg_preprocess_time": sum(means.get(s, 0.0) for s in ("load_audio", "mel_spectrogram", "preprocess")),
            "avg_inference_time": means.get("inference", 0.0),
            "cache_hits": hits,
            "cache_hit_rate": hits / n if n else 0.0,
            "device": self.backend.device,
            "using_fp16": self.backend.precision == "float16",
            "precision": self.backend.precision,
            "backend": self.backend.name,
            "model": self.card.name,
            "batch_sizes": dict(sorted(self._lane.batch_sizes.items())),
            "cache": self.cache.stats() if self.cache else None,
        }

    # --- one file ---

    def _start(self, path: str, described: bool, on_stage: Callable[[str], None]) -> Future[Analysis | Failure]:
        try:
            return self._pool.submit(self._analyze_or_fail, path, described, on_stage)
        except RuntimeError:  # closed by another thread: the file still gets its answer
            stopped: Future[Analysis | Failure] = Future()
            stopped.set_result(_stopped(path))
            return stopped

    def _analyze_or_fail(self, path: str, described: bool, on_stage: Callable[[str], None]) -> Analysis | Failure:
        if self._closing.is_set():
            return _stopped(path)
        try:
            return self._analyze(path, described, on_stage)
        except AcousticError as error:
            return Failure(path, error.to_dict())
        except (
            Exception
        ) as error:  # a batch must survive our own faults: this file fails with their name, the rest go on
            return Failure(path, InternalError(f"{type(error).__name__}: {error}").to_dict())

    def _analyze(self, path: str, described: bool, on_stage: Callable[[str], None]) -> Analysis:
        trace = Trace()
        with self._count_lock:
            self._n_requests += 1
        with tracing(trace):
            on_stage("load_audio")
            digest = self._digest(path)
            heard = self._heard(path, digest, on_stage)
            with span("postprocess"):
                measured, warnings = None, heard.warnings
                if described or self.settings.rules:
                    try:
                        measured = self._descriptors(path, digest, heard)
                    except AudioError as error:  # the verdict stands without them
                        warnings += (AudioWarning("NO_DESCRIPTORS", error.message),)
                personal = self.personal  # once: it may be exchanged meanwhile
                read = personal or self.card
                verdict = decide(
                    personal.read(heard.votes) if personal else heard.votes,
                    read.labels,
                    self.card.tag_labels,
                    read.calibration,
                    descriptors=measured,
                    use_rules=self.settings.rules,
                    warnings=warnings,
                )
                tags = self._tags(heard.votes)
        self.profiler.add(trace, path)
        with self._count_lock:
            self._n_cached += heard.cached
        on_stage("done")
        return Analysis(
            path=path,
            model=self.card.name,
            duration_s=heard.duration_s,
            analyzed_s=_covered(heard.start_s, heard.end_s),
            cached=heard.cached,
            verdict=verdict,
            start_s=heard.start_s,
            end_s=heard.end_s,
            tags=tags,
            embedding=heard.votes.embeddings.mean(axis=0),
            timings_ms=trace.timings_ms(),
            descriptors=measured,
            warnings=warnings,
            info=heard.info,
            votes=heard.votes,
            personal=personal.name if personal else None,
        )

    def _digest(self, path: str) -> str | None:
        """The file's content digest, remembered by (device, inode, size, mtime); None without a cache."""
        with span("load_audio"):
            identity = audio.file_identity(path)
            if not os.access(path, os.R_OK):
                raise StorageError(f"{path} may not be read")
            if self.cache is None:
                return None
            if identity[2] > self.settings.max_file_mb * 2**20:
                return None  # refused when it is opened; not worth reading first
            key = make_key("digest", *identity)
            entry, _ = self.cache.get_or_compute(key, lambda: CacheEntry({}, {"digest": audio.digest(path)}))
            return str(entry.meta["digest"])

    def _heard(self, path: str, digest: str | None, on_stage: Callable[[str], None]) -> _Heard:
        """The votes on a file, from the cache or anew."""
        key = self._key("votes", digest, self.card.weights_digest, self.backend.precision)
        with span("cache"):
            kept = self.cache.get(key) if self.cache and key else None
        if kept is not None:
            return _heard_from(kept)
        mels = self._mels(path, digest, on_stage)
        with span("preprocess"):
            ready = normalize(torch.from_numpy(mels.arrays["mels"].copy()), self.card.mel).numpy()
        on_stage("inference")
        answer = self._lane.submit(ready).result()
        if (trace := current()) is not None:
            trace.add("wait", answer.wait_ms, ended_ms_ago=answer.inference_ms)
            trace.add("inference", answer.inference_ms)
        arrays = {
            "logits": answer.votes.logits,
            "tag_logits": answer.votes.tag_logits,
            "embeddings": answer.votes.embeddings,
            "start_s": mels.arrays["start_s"],
            "end_s": mels.arrays["end_s"],
        }
        entry = CacheEntry(arrays, mels.meta)
        with span("cache"):
            if self.cache and key:
                self.cache.put(key, entry)
        return dataclasses.replace(_heard_from(entry), cached=False)

    def _mels(self, path: str, digest: str | None, on_stage: Callable[[str], None]) -> CacheEntry:
        """The dB mels of the chosen segments (K, n_mels, 224) with their places, from the cache or decoded."""

        def compute() -> CacheEntry:
            with span("load_audio"), audio.open_audio(path, self.card.mel.sample_rate, self.settings) as reader:
                chosen = segments.take(reader.read, reader.duration_s, self.segment_spec, self.card.mel)
                meta = {
                    "duration_s": reader.duration_s,
                    "warnings": [dataclasses.asdict(w) for w in reader.warnings()],
                    "info": dataclasses.asdict(reader.info),
                }
            on_stage("mel_spectrogram")
            with span("mel_spectrogram"):
                mels = log_mel(self._enhanced(chosen), self.card.mel).numpy()
            places = {"start_s": np.asarray(chosen.start_s), "end_s": np.asarray(chosen.end_s)}
            return CacheEntry({"mels": mels, **places}, meta)

        key = self._key("mels", digest)
        if self.cache is None or key is None:
            return compute()
        return self.cache.get_or_compute(key, compute)[0]

    def _enhanced(self, chosen: Segments) -> np.ndarray:
        samples = chosen.samples
        if self.settings.denoise:
            samples = enhance.denoise(samples, chosen.sample_rate)
        if self.settings.compress:
            samples = enhance.compress(samples, chosen.sample_rate)
        return samples

    def _descriptors(self, path: str, digest: str | None, heard: _Heard) -> Descriptors:
        """Tempo, beat and low frequencies of the middle of the track; vocal presence from the tags."""

        def compute() -> CacheEntry:
            with audio.open_audio(path, self.card.mel.sample_rate, self.settings) as reader:
                length = min(DESCRIBED_S, reader.duration_s)
                measured = descriptors.measure(reader.read((reader.duration_s - length) / 2, length))
            return CacheEntry({}, measured.to_dict())

        with span("descriptors"):
            key = self._key("descriptors", digest)
            if self.cache is None or key is None:
                entry = compute()
            else:
                entry, _ = self.cache.get_or_compute(key, compute)
        return dataclasses.replace(Descriptors(**entry.meta), vocal_presence=self._vocal_presence(heard.votes))

    def _vocal_presence(self, votes: Votes) -> float | None:
        """Mean over the segments of the likeliest voice tag; None for a model without such tags."""
        columns = [i for i, tag in enumerate(self.card.tag_labels) if tag in VOCAL_TAGS]
        if not columns:
            return None
        return float(_sigmoid(votes.tag_logits[:, columns]).max(axis=1).mean())

    def _tags(self, votes: Votes) -> tuple[tuple[str, float], ...]:
        """Mean probability of every tag over the segments, best first."""
        mean = _sigmoid(votes.tag_logits).mean(axis=0)
        return tuple((self.card.tag_labels[i], float(mean[i])) for i in np.argsort(-mean, kind="stable"))

    def _key(self, kind: str, digest: str | None, *more: str) -> str | None:
        """Cache key of a derived value: content, specs and switches that change it, and `more`; None without a
        digest.
        """
        if digest is None:
            return None
        s = self.settings
        bounds = (s.min_sample_rate_hz, s.max_sample_rate_hz, s.max_channels, s.min_duration_s, s.max_duration_s)
        how = (self.card.mel, self.segment_spec, s.denoise, s.compress, s.whole_file_s)
        return make_key(CACHE_VERSION, kind, digest, *how, *bounds, *self._versions, *more)


def _heard_from(entry: CacheEntry) -> _Heard:
    arrays, meta = entry.arrays, entry.meta
    return _Heard(
        votes=Votes(arrays["logits"], arrays["tag_logits"], arrays["embeddings"]),
        start_s=tuple(float(s) for s in arrays["start_s"]),
        end_s=tuple(float(s) for s in arrays["end_s"]),
        duration_s=float(meta["duration_s"]),
        warnings=tuple(AudioWarning(**warning) for warning in meta["warnings"]),
        info=AudioInfo(**meta["info"]),
        cached=True,
    )


def _stopped(path: str) -> Failure:
    return Failure(path, StoppedError("the classifier was closed before this file was analysed").to_dict())


def _nobody(stage: str) -> None:
    """Where no one listens to the stages."""


def _covered(start_s: Sequence[float], end_s: Sequence[float]) -> float:
    """Seconds of the track that at least one segment covers; starts rise."""
    covered, reached = 0.0, 0.0
    for start, end in zip(start_s, end_s, strict=True):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
