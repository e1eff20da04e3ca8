"""What is heard elsewhere gives the very numbers that the engine finds by itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acoustic import decoding
from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import AudioError, NotAudioError, StorageError
from acoustic.profiler import SpanExecutor, Trace, span, tracing
from acoustic.records import CacheEntry, MelSpec, SegmentSpec
from acoustic.settings import Settings
from acoustic.signal import audio
from acoustic.signal.reader import DecodingError
from acoustic.workstation.scanning import READ_TAGS, worker_context
from tests.test_engine import assert_same, song


def travelled(entry: CacheEntry) -> CacheEntry:
    """As it arrives from a worker: arrays as they were, the rest through JSON."""
    return CacheEntry(entry.arrays, json.loads(json.dumps(dict(entry.meta))))


def heard_elsewhere(classifier: OptimizedAudioClassifier, path: Path) -> CacheEntry:
    context = json.loads(json.dumps(worker_context(classifier.card, classifier.settings)))
    return travelled(decoding.hear_remotely(str(path), context))


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_segments": 5, "segment_mode": "middle"}, {"denoise": True, "compress": True}, {"rules": True}],
    ids=["plain", "segments", "enhanced", "rules"],
)
def test_judged_as_if_analysed_here(fresh: Settings, tmp_path: Path, changes: dict) -> None:
    settings = dataclasses.replace(fresh, **changes)
    path = song(tmp_path / "a.wav", 60.0)
    with OptimizedAudioClassifier(settings=settings, cache=False) as classifier:
        expected = classifier.analyze(path)
        found = classifier.judge(path, None, heard_elsewhere(classifier, path))
    assert_same(found, expected)
    assert found.tags == expected.tags
    assert found.info == expected.info
    assert found.descriptors == expected.descriptors
    assert found.verdict.rules_applied == expected.verdict.rules_applied
    assert found.votes is not None
    assert expected.votes is not None
    assert np.array_equal(found.votes.logits, expected.votes.logits)
    assert not found.cached
    assert (found.path, found.model) == (expected.path, expected.model)


def test_descriptors_that_cannot_be_measured_are_a_warning(
    fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AudioError("no beat")

    monkeypatch.setattr(decoding, "describe", fail)
    path = song(tmp_path / "a.wav", 12.0)
    with OptimizedAudioClassifier(settings=dataclasses.replace(fresh, rules=True), cache=False) as classifier:
        entry = heard_elsewhere(classifier, path)
        monkeypatch.undo()
        found = classifier.judge(path, None, entry)
    assert ("NO_DESCRIPTORS", "no beat") in [(w.code, w.message) for w in found.warnings]
    assert found.descriptors is None


def test_what_was_judged_is_cached(fresh: Settings, tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav", 12.0)
    with OptimizedAudioClassifier(settings=fresh) as classifier:
        judged = classifier.judge(path, audio.digest(path), heard_elsewhere(classifier, path))
        again = classifier.analyze(path)
        assert classifier.get_stats()["total_requests"] == 2
    assert again.cached
    assert_same(again, judged)


def test_a_look_says_digest_and_tags(tmp_path: Path) -> None:
    context = {"settings": dataclasses.asdict(Settings()), "read_tags": READ_TAGS}
    path = song(tmp_path / "a.wav", 3.0)
    meta = travelled(decoding.look_remotely(str(path), context)).meta
    assert meta["digest"] == audio.digest(path)
    assert meta["tags"] == {"title": "", "artist": "", "album": "", "year": "", "genres": []}
    text = tmp_path / "text.mp3"
    text.write_text("no music, and no tags")
    assert decoding.look_remotely(str(text), context).meta["digest"] == audio.digest(text)
    assert decoding.look_remotely(str(path), {**context, "read_tags": ""}).meta["tags"]["title"] == ""
    with pytest.raises(StorageError):
        decoding.look_remotely(str(tmp_path / "none.mp3"), context)


def test_errors_are_those_of_the_file(tmp_path: Path) -> None:
    text = tmp_path / "text.mp3"
    text.write_text("this is no music at all")
    with pytest.raises(NotAudioError):
        decoding.hear(text, MelSpec(), SegmentSpec(), Settings())


def long_song(path: Path, hot: bool = False) -> Path:
    """Two minutes in stereo that change all along; `hot`: with runs of samples at full scale in its last third."""
    import soundfile

    t = np.arange(120 * 44_100) / 44_100
    mono = 0.3 * np.sin(2 * np.pi * (80 + 3 * t) * t) * (0.6 + 0.4 * np.sin(0.7 * t))
    if hot:
        mono[len(mono) * 2 // 3 :] = np.sign(mono[len(mono) * 2 // 3 :])
    stereo = np.stack([mono, np.roll(mono, 300)], axis=1).astype(np.float32)
    with soundfile.SoundFile(path, "w", 44_100, 2) as out:
        for start in range(0, len(stereo), 44_100):  # long Vorbis writes crash libsndfile
            out.write(stereo[start : start + 44_100])
    return path


MEL, SPEC = MelSpec(), SegmentSpec(n_segments=4)


@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_two_readers_read_what_one_reads(tmp_path: Path, suffix: str, hot: bool) -> None:
    path = long_song(tmp_path / f"a.{suffix}", hot)
    alone, about = decoding.read(path, MEL, SPEC, Settings())
    with ThreadPoolExecutor(1) as beside:
        together, about_both = decoding.read(path, MEL, SPEC, Settings(), beside)
        mels = [decoding.mels_of(alone, about, MEL, Settings(), helper).arrays["mels"] for helper in (None, beside)]
    np.testing.assert_array_equal(*mels)
    np.testing.assert_array_equal(together.samples, alone.samples)
    assert (together.start_s, together.end_s) == (alone.start_s, alone.end_s)
    assert about_both == about
    assert any(warning["code"] == "CLIPPED" for warning in about["warnings"]) == hot


def test_what_is_done_beside_lies_inside_its_stage(tmp_path: Path) -> None:
    path, trace = long_song(tmp_path / "a.wav", hot=False), Trace()
    with ThreadPoolExecutor(1, thread_name_prefix="beside") as beside, tracing(trace):
        with span("load_audio"):
            chosen, about = decoding.read(path, MEL, SPEC, Settings(), SpanExecutor(beside, "load_audio"))
        with span("mel_spectrogram"):
            decoding.mels_of(chosen, about, MEL, Settings(), SpanExecutor(beside, "mel_spectrogram"))
    outer = {one.name: one for one in trace.spans() if one.depth == 0}
    inner = [one for one in trace.spans() if one.depth == 1]
    assert [one.name for one in inner] == ["load_audio", "mel_spectrogram"]
    for one in inner:
        stage = outer[one.name]
        assert one.thread.startswith("beside")
        assert stage.thread_id != one.thread_id
        assert stage.start_ms <= one.start_ms
        assert one.start_ms + one.duration_ms <= stage.start_ms + stage.duration_ms
        assert trace.timings_ms()[one.name] == stage.duration_ms  # counted once


@pytest.mark.parametrize("how", ["not opened", "gives up", "stops short"])
def test_what_cannot_be_read_beside_is_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    path = long_song(tmp_path / "a.wav")
    alone, about = decoding.read(path, MEL, SPEC, Settings())
    opened, real = [], audio.open_beside

    def failing(path: object, reader: audio.AudioReader, settings: Settings) -> audio.AudioReader:
        opened.append(path)
        if how == "not opened":
            raise StorageError("gone meanwhile")
        made = real(path, reader, settings)  # type: ignore[arg-type]
        decoder: Any = made._decoder
        whole = decoder.blocks

        def blocks(start: int, n: int) -> Iterator[np.ndarray]:
            yield from whole(start, min(n, decoder.sample_rate))
            if how == "gives up":
                raise DecodingError("libsndfile: it broke")

        decoder.blocks = blocks
        return made

    monkeypatch.setattr(audio, "open_beside", failing)
    with ThreadPoolExecutor(1) as beside:
        together, about_both = decoding.read(path, MEL, SPEC, Settings(), beside)
    assert len(opened) == 1
    np.testing.assert_array_equal(together.samples, alone.samples)
    assert about_both == about


def test_another_file_under_the_same_name_is_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = long_song(tmp_path / "a.wav"), long_song(tmp_path / "b.wav", hot=True)
    alone, _ = decoding.read(path, MEL, SPEC, Settings())
    refused, real = [], audio.open_beside

    def exchanged(_: object, *arguments: object) -> audio.AudioReader:
        try:
            return real(other, *arguments)  # type: ignore[arg-type]
        except StorageError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(audio, "open_beside", exchanged)
    with ThreadPoolExecutor(1) as beside:
        together, _ = decoding.read(path, MEL, SPEC, Settings(), beside)
    assert len(refused) == 1
    np.testing.assert_array_equal(together.samples, alone.samples)
