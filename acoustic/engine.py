"""The one place where stages are chained: OptimizedAudioClassifier.

    load_audio -> mel_spectrogram -> preprocess -> (wait) -> inference -> postprocess

Decoding runs in a pool of threads, or elsewhere (`judge` takes what `decoding.hear` gave in another process); the
network runs in one lane, which fills its batches across files. The stages know neither cache nor profiler: both are
wrapped around them here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import decoding
from .cache import Cache
from .contents import Contents, Identity
from .derived import Derived
from .errors import AcousticError, AudioError, InternalError, SettingsError, StoppedError
from .heard import Heard, entry_of
from .lane import InferenceLane
from .network import backends
from .network.registry import EMBEDDED_MODEL, Registry, model_folders
from .profiler import Profiler, SpanExecutor, Trace, current, rest, span, tracing
from .records import Analysis, AudioWarning, CacheEntry, Descriptors, Failure, Personal
from .settings import Settings, available_cores
from .signal import descriptors
from .signal.mel import log_mel, normalize
from .traffic import Traffic
from .verdict.decision import decide
from .verdict.tags import mean_tags, vocal_presence

PathLike = str | os.PathLike[str]
OnStage = Callable[[int, str], None]


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
        n_threads: int | None = None,
    ) -> None:
        self.settings = settings or Settings.load()
        self.batch_size = batch_size or self.settings.batch_size
        if self.batch_size < 1:
            raise SettingsError(f"batch_size = {self.batch_size}; at least 1 segment must go through the network")
        wanted = model_path if isinstance(model_path, Path) else os.fspath(model_path)
        registry = Registry(model_folders(self.settings))
        source, self.card = registry.source(wanted or self.settings.model or EMBEDDED_MODEL)
        self.segment_spec = self.settings.segments_of(self.card.segments)
        precision = self.settings.precision if use_fp16 else "float32"
        here: dict[str, Any] = {
            "device": device or self.settings.device,
            "n_threads": n_threads or (self.settings.n_threads() if self.settings.torch_threads else None),
            "n_segments": min(self.batch_size, self.segment_spec.n_segments),
            "folder": self.settings.cache_folder() / "backends",
        }
        self.backend = backends.create(source, backend=self.settings.backend, precision=precision, **here)
        by_name = (self.settings.backend, precision) != ("auto", "auto")
        self.chosen_before = backends.chosen_before(source, **here) if by_name else {}
        """what was chosen by measurement here, where a backend was asked for by name (see `backends.chosen_before`)"""
        self.personal: Personal | None = None
        self.profiler = Profiler()
        self.cache = cache if isinstance(cache, Cache) else self._new_cache() if cache else None
        self._contents = Contents(self.cache, self.settings)
        graph = source.int8_digest() if precision in ("auto", "int8") else ""
        self._derived = Derived(self.cache, self.card, self.segment_spec, self.settings, precision, graph)
        self._lane = InferenceLane(self.backend, self.batch_size)
        self._pool = ThreadPoolExecutor(self.settings.n_workers(), thread_name_prefix="decode")
        # for a file that is alone: its later half is read here, and it is kept here behind its answer
        self._beside = ThreadPoolExecutor(2, thread_name_prefix="beside") if available_cores() > 1 else None
        self._traffic = Traffic()
        self._closing = threading.Event()
        self._warming = threading.Lock()
        self._described = False

    def _new_cache(self) -> Cache:
        return Cache(self.settings.cache_folder(), self.settings.cache_mb, self.settings.cache_entries)

    def __enter__(self) -> OptimizedAudioClassifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the files that are being analysed, stop those that wait, and end the threads. May be called twice."""
        self._closing.set()
        self._pool.shutdown(wait=True)
        if self._beside is not None:
            self._beside.shutdown(wait=True)
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
        self._lane.submit(normalize(log_mel(noise, self.card.mel), self.card.mel)).result()
        if described:
            self._warm_up_descriptors()

    def _warm_up_descriptors(self) -> None:
        """librosa's compiled functions, once. They are compiled after the network was converted, never beside it: numba
        fails while another thread traces a network."""
        with self._warming:
            if not self._described:
                self.backend.wait()
                descriptors.warm_up()
                self._described = True

    # --- the public face ---

    def analyze(self, path: PathLike, *, descriptors: bool = False) -> Analysis:
        """The analysis of one file. Raises AudioError for a file that cannot be analysed."""
        return self._analyze(os.fspath(path), descriptors, _nobody)

    def judge(self, path: PathLike, digest: str | None, prepared: CacheEntry) -> Analysis:
        """The analysis of a file that `decoding.hear` has heard with this classifier's card, `segment_spec` and
        settings: the same numbers as `analyze`. With its `digest` the votes are cached, as they are there.
        """
        trace, name = Trace(), os.fspath(path)
        with tracing(trace), self._traffic.at_work():
            trace.add_all(prepared.meta.get("timings_ms", {}))  # what was measured where it was heard
            votes = self._vote(prepared, _nobody)
            if digest is not None:
                self._derived.keep(digest, votes=votes)
                with suppress(AudioError):  # it was moved meanwhile
                    self._contents.remember_looks(name)
            return self._finish(name, digest, Heard.of(votes, cached=False), trace, False)

    def analyze_many(
        self, paths: Sequence[PathLike], *, descriptors: bool = False, on_stage: OnStage | None = None
    ) -> Iterator[tuple[int, Analysis | Failure]]:
        """(index into `paths`, its Analysis or Failure) as they finish; a bad file never stops the rest.

        `on_stage(index, stage)` is called from the working threads. Only a few files are in flight at a time, so a
        million paths cost no more memory than ten; a caller that stops iterating stops the work.
        """
        todo = iter(enumerate(paths))
        running: dict[Future[Analysis | Failure], int] = {}
        in_flight = self.settings.n_workers() + 2

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
                if future.cancel():
                    self._traffic.queue(-1)

    async def process_audio_batch(self, paths: Sequence[PathLike], top_k: int = 5) -> list[dict[str, Any]]:
        """The JSON contract's object of every path, in order; one bad file never fails the rest."""

        def run() -> list[dict[str, Any]]:
            done = dict(self.analyze_many(paths))
            return [done[i].to_dict(top_k) for i in range(len(paths))]

        return await asyncio.to_thread(run)

    def describe(self, path: PathLike) -> Descriptors:
        """The descriptors of one file, with vocal presence from its tag votes. Raises AudioError."""
        name = os.fspath(path)
        with self._traffic.at_work(request=False):
            digest, heard = self._heard(name, _nobody, digested=True)
            return self._descriptors(name, digest, heard)

    def get_stats(self) -> dict[str, Any]:
        """Totals since the start: requests, mean times in ms, cache hits, and how the network is executed."""
        means = self.profiler.means_ms()
        return {
            "total_requests": self._traffic.n_requests,
            "avg_preprocess_time": sum(means.get(s, 0.0) for s in ("load_audio", "mel_spectrogram", "preprocess")),
            "avg_inference_time": means.get("inference", 0.0),
            "cache_hits": self._traffic.n_known,
            "cache_hit_rate": self._traffic.share_known(),
            "device": self.backend.device,
            "using_fp16": self.backend.precision == "float16",
            "precision": self.backend.precision,
            "backend": self.backend.name,
            "model": self.card.name,
            "batch_sizes": dict(sorted(self._lane.batch_sizes.items())),
            "cache": self.cache.stats() if self.cache else None,
        }

    def wait_for_backend(self, timeout_s: float | None = None) -> bool:
        """Wait until the backends of this machine are measured and the best is in use; whether it is. Nothing needs
        it: the first one answers meanwhile."""
        return self.backend.wait(timeout_s)

    def wait_for_cache(self, timeout_s: float | None = None) -> bool:
        """Wait until all that was answered is in the cache; whether it is."""
        return self._contents.wait(timeout_s)

    def load(self) -> dict[str, Any]:
        """What waits and works at this moment: segments before the network, files before a decoder, files that were
        begun and have no answer yet, the seconds that the network has been busy since the start."""
        return {
            "queue_segments": self._lane.n_waiting,
            "waiting_files": self._traffic.n_queued,
            "files_at_work": self._traffic.n_at_work,
            "network_busy_s": self._lane.busy_s,
        }

    # --- one file ---

    def _start(self, path: str, described: bool, on_stage: Callable[[str], None]) -> Future[Analysis | Failure]:
        try:
            begun = self._pool.submit(self._analyze_or_fail, path, described, on_stage)
            self._traffic.queue(+1)
            return begun
        except RuntimeError:  # closed by another thread: the file still gets its answer
            stopped: Future[Analysis | Failure] = Future()
            stopped.set_result(Failure(path, _stopped().to_dict()))
            return stopped

    def _analyze_or_fail(self, path: str, described: bool, on_stage: Callable[[str], None]) -> Analysis | Failure:
        self._traffic.queue(-1)
        try:
            if self._closing.is_set():
                raise _stopped()
            return self._analyze(path, described, on_stage)
        except AcousticError as error:
            return Failure(path, error.to_dict())
        except Exception as error:  # our own fault: this file fails with its name, the rest of the batch goes on
            return Failure(path, InternalError(f"{type(error).__name__}: {error}").to_dict())

    def _analyze(self, path: str, described: bool, on_stage: Callable[[str], None]) -> Analysis:
        trace = Trace()
        with tracing(trace), self._traffic.at_work():
            on_stage("load_audio")
            digest, heard = self._heard(path, on_stage, digested=described or self.settings.rules)
            analysis = self._finish(path, digest, heard, trace, described)
        on_stage("done")
        return analysis

    def _finish(self, path: str, digest: str | None, heard: Heard, trace: Trace, described: bool) -> Analysis:
        """What was heard -> its analysis; the end of `trace`."""
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
            tags = mean_tags(heard.votes.tag_logits, self.card.tag_labels)
            embedding = heard.votes.embeddings.mean(axis=0)
        run = self.profiler.add(trace, path)
        self._traffic.answered(heard.cached)
        return Analysis(
            path=path,
            model=self.card.name,
            duration_s=heard.duration_s,
            analyzed_s=heard.analyzed_s,
            cached=heard.cached,
            verdict=verdict,
            start_s=heard.start_s,
            end_s=heard.end_s,
            tags=tags,
            embedding=embedding,
            timings_ms=run.timings_ms,
            descriptors=measured,
            warnings=warnings,
            info=heard.info,
            votes=heard.votes,
            personal=personal.name if personal else None,
        )

    def _heard(self, path: str, on_stage: Callable[[str], None], *, digested: bool) -> tuple[str | None, Heard]:
        """The file's digest and the votes on it, from the cache or anew. The digest is None without a cache and, unless
        the file must be `digested` first, for a new one that is alone: it is kept behind its answer. What looks like
        something that was kept may be a copy, and is digested, to be known again under its new name."""
        try:
            identity, digest = self._contents.known(path)
            if digest is None and identity is not None:
                mels = None if digested or self._contents.looks_known(path) else self._decoded_alone(path, on_stage)
                if mels is not None and self._beside is not None:
                    votes = self._vote(mels, on_stage)
                    keep = partial(self._derived.keep, votes=votes, mels=mels)
                    self._contents.keep_behind(self._beside, path, identity, keep)
                    return None, Heard.of(votes, cached=False)
                digest = self._contents.digest(path, identity)
            if (kept := self._derived.votes(digest)) is not None:
                return digest, Heard.of(kept, cached=True)
            votes = self._vote(self._mels(path, digest, on_stage, identity), on_stage)
            self._derived.keep(digest, votes=votes)
            return digest, Heard.of(votes, cached=False)
        except RuntimeError as error:
            if self._closing.is_set():  # its threads take nothing on any more
                raise _stopped() from error
            raise

    def _vote(self, mels: CacheEntry, on_stage: Callable[[str], None]) -> CacheEntry:
        """The network's votes on a file's mels, through the lane, with all that must be kept beside them."""
        with span("preprocess"):
            ready = normalize(mels.arrays["mels"], self.card.mel)
        on_stage("inference")
        asked = time.perf_counter()
        answer = self._lane.submit(ready).result()
        took_ms = 1e3 * (time.perf_counter() - asked)
        if (trace := current()) is not None:  # the way to the lane and back is waiting, too
            trace.add("wait", max(0.0, took_ms - answer.inference_ms), ended_ms_ago=answer.inference_ms)
            trace.add("inference", answer.inference_ms)
        return entry_of(answer.votes, mels)

    def _decoded(self, path: str, on_stage: Callable[[str], None], beside: ThreadPoolExecutor | None) -> CacheEntry:
        """The dB mels of the chosen segments (K, n_mels, 224) with their places."""
        mel, settings = self.card.mel, self.settings

        def helper(stage: str) -> SpanExecutor | None:
            return None if beside is None else SpanExecutor(beside, stage)

        with span("load_audio"):
            chosen, about = decoding.read(path, mel, self.segment_spec, settings, helper("load_audio"))
        on_stage("mel_spectrogram")
        with span("mel_spectrogram"):
            return decoding.mels_of(chosen, about, mel, settings, helper("mel_spectrogram"))

    def _decoded_alone(self, path: str, on_stage: Callable[[str], None]) -> CacheEntry | None:
        """What `_decoded` gives, if the file is the only one; else None."""
        with self._decoding() as beside:
            return None if beside is None else self._decoded(path, on_stage, beside)

    def _mels(
        self, path: str, digest: str | None, on_stage: Callable[[str], None], identity: Identity | None
    ) -> CacheEntry:
        """What `_decoded` gives, from the cache or made now, of the file of that `identity`."""

        def compute() -> CacheEntry:
            with self._decoding() as beside:
                made = self._decoded(path, on_stage, beside)
            self._contents.check_unchanged(path, identity)
            return made

        with rest("cache"):
            return self._derived.get_or_compute("mels", digest, compute)

    @contextmanager
    def _decoding(self) -> Iterator[ThreadPoolExecutor | None]:
        """A helper for the file that is about to be decoded, if it is the only one: several files keep the cores busy
        by themselves."""
        with self._traffic.decoding() as alone:
            yield self._beside if alone else None

    def _descriptors(self, path: str, digest: str | None, heard: Heard) -> Descriptors:
        """Tempo, beat and low frequencies of the middle of the track; vocal presence from the tags."""

        def compute() -> CacheEntry:
            self._warm_up_descriptors()
            return CacheEntry({}, decoding.describe(path, self.card.mel.sample_rate, self.settings).to_dict())

        voice = vocal_presence(heard.votes.tag_logits, self.card.tag_labels)
        if heard.described is not None:
            if "problem" in heard.described:
                raise AudioError(heard.described["problem"])
            return dataclasses.replace(Descriptors(**heard.described), vocal_presence=voice)
        with span("descriptors"):
            entry = self._derived.get_or_compute("descriptors", digest, compute)
        return dataclasses.replace(Descriptors(**entry.meta), vocal_presence=voice)


def _stopped() -> StoppedError:
    return StoppedError("the classifier was closed before this file was analysed")


def _nobody(stage: str) -> None:
    """Where no one listens to the stages."""
