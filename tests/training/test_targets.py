from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from acoustic.errors import ManifestError
from acoustic.training import targets
from acoustic.training.config import TeacherSpec
from acoustic.training.manifest import Row
from acoustic.training.targets import TeacherAnswers, WaveformStore, ask_teacher, keep_waveforms
from acoustic.training.teachers import Plugged

TEACHER = '''
import torch
SAMPLE_RATE = 8000
def labels(): return ["low", "high"]
class Teacher:
    """Mean amplitudes of the halves of the spectrum; as embedding, those of its sixths against the whole."""
    def __call__(self, x):
        s = torch.fft.rfft(x.unfold(1, 256, 256), dim=2).abs().mean(1)  # short transforms: OpenVINO has no fast one
        half = s.shape[1] // 2
        sixths = torch.stack([b.mean(1) / s.mean(1).clamp_min(1e-6) for b in s.chunk(6, 1)], 1)
        return torch.stack([s[:, :half].mean(1), s[:, half:].mean(1)], 1), sixths
'''


def answers(window_s: float, hop_s: float, n: int) -> TeacherAnswers:
    """Windows whose logits are their own number."""
    return TeacherAnswers(
        TeacherSpec("t", "t.py", window_s=window_s, hop_s=hop_s),
        ("x",),
        np.arange(n, dtype=np.float32)[:, None],
        np.ones((n, 2), np.float32),
        np.arange(n) * hop_s,
        np.asarray([0, n]),
    )


def test_a_crop_on_a_window_gets_its_answer() -> None:
    logits, embedding = answers(10.0, 10.0, 5).of_crop(0, 20.0, 10.0)
    assert logits[0] == pytest.approx(2.0, abs=1e-6)
    assert embedding == pytest.approx([1.0, 1.0])


def test_a_crop_half_way_gets_the_mean() -> None:
    assert answers(10.0, 10.0, 5).of_crop(0, 25.0, 10.0)[0][0] == pytest.approx(2.5, abs=1e-6)


@given(st.floats(0, 50), st.floats(0.5, 30))
def test_weights_are_a_share_of_one(start_s: float, length_s: float) -> None:
    _, weight = answers(3.0, 3.0, 20).weights(0, start_s, length_s)
    assert weight.sum() == pytest.approx(1.0)
    assert (weight >= 0).all()


# --- asking, with a kill in between ---

ASKED = TeacherSpec("spectrum", "teacher.py", window_s=0.1, hop_s=0.1)
N_TRACKS = 7
Asking = Callable[..., tuple[Path, list[int]]]


class Killed(BaseException):
    """What no code catches."""


class Progress:
    """Which tracks a teacher is asked about; a kill when it comes to track `until`."""

    def __init__(self, until: int | None = None) -> None:
        self.until, self.tracks = until, list[int]()

    def __call__(self, name: str, done: int, n: int) -> None:
        assert (name, n) == ("spectrum", N_TRACKS)
        if done == self.until:
            raise Killed
        self.tracks.append(done)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asking:
    """Ask about seven tracks, of up to 30 windows, in parts of two: (the file, the tracks that the teacher was asked
    about). A batch of 32 windows ends in the middle of tracks."""
    monkeypatch.setattr(targets, "PART", 2)
    (tmp_path / "teacher.py").write_text(TEACHER)

    def ask(folder: str, until: int | None = None, seed: int = 0) -> tuple[Path, list[int]]:
        rng = np.random.default_rng(seed)
        waveforms = [rng.normal(0, 0.1, int(rng.integers(500, 24_000))).astype(np.float32) for _ in range(N_TRACKS)]
        names = [str(i) for i in range(N_TRACKS)]
        store = keep_waveforms(names, waveforms, tmp_path / folder, 8_000, f"noise {seed}")
        progress = Progress(until)
        with contextlib.suppress(Killed):
            ask_teacher(ASKED, store, tmp_path, tmp_path / folder, progress)
        return tmp_path / folder / "spectrum.npz", progress.tracks

    return ask


def test_a_killed_run_goes_on_with_the_parts_that_were_kept_to_the_same_bytes(
    asked: Asking,
) -> None:
    whole, tracks = asked("whole")
    assert tracks == list(range(N_TRACKS))
    killed, tracks = asked("killed", until=5)
    assert tracks == [0, 1, 2, 3, 4]
    assert not killed.exists()
    assert asked("killed", until=6)[1] == [4, 5], "the part in which the kill came is asked about anew"
    assert asked("killed")[1] == [6]
    assert killed.read_bytes() == whole.read_bytes()
    assert asked("killed")[1] == [], "what is finished is asked about no more"
    for folder in (whole.parent, killed.parent):
        assert sorted(file.name for file in folder.iterdir()) == ["index.json", "spectrum.npz", "waveforms.i16"]


def test_an_answer_that_is_no_number_is_told_with_its_file_and_not_kept(
    asked: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = targets._answers

    def wrong(spec: TeacherSpec, rate: int, ask: Callable[..., Any], *rest: Any) -> dict[str, np.ndarray]:
        return real(spec, rate, lambda batch: tuple(x + np.nan for x in ask(batch)), *rest)

    monkeypatch.setattr(targets, "_answers", wrong)
    with pytest.raises(ManifestError, match="the teacher 'spectrum' answers '0' with"):
        asked("unsound")
    assert not (tmp_path / "unsound" / "spectrum.npz").exists()


def test_an_index_never_stands_beside_the_waveforms_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while the waveforms of one data set take the place of another's."""
    loud, quiet = np.full(1_000, 0.5, np.float32), np.full(1_000, 0.1, np.float32)
    keep_waveforms(["a", "b"], [loud, quiet], tmp_path, 8_000, "first")

    def killed(file: Path, data: bytes) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(targets, "write_whole", killed)
        with contextlib.suppress(Killed):
            keep_waveforms(["b", "a"], [quiet, loud], tmp_path, 8_000, "second")
    store = keep_waveforms(["a", "b"], [loud, quiet], tmp_path, 8_000, "first")
    assert store.read(0) == pytest.approx(loud, abs=1e-4)


INDEX = b'{"stamp": "one", "sample_rate": 8000, "files": ["a"], "offsets": 5}'


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("index.json", b"{"),
        ("index.json", b"[]"),
        ("index.json", INDEX),
        ("waveforms.i16", b"x" * 100),
        ("waveforms.i16", b""),
        ("", b""),
    ],
)
def test_what_is_damaged_is_made_anew(tmp_path: Path, file: str, data: bytes) -> None:
    waveform = np.full(1_000, 0.5, np.float32)
    keep_waveforms(["a"], [waveform], tmp_path, 8_000, "one")
    if file:
        (tmp_path / file).write_bytes(data)
    else:
        (tmp_path / "waveforms.i16").unlink()
    assert keep_waveforms(["a"], [waveform], tmp_path, 8_000, "one").read(0) == pytest.approx(waveform, abs=1e-4)


def test_answers_that_are_damaged_are_asked_for_anew(asked: Asking) -> None:
    file, _ = asked("whole")
    sound = file.read_bytes()
    file.write_bytes(sound[:100])
    assert asked("whole")[1] == list(range(N_TRACKS))
    assert file.read_bytes() == sound


@pytest.mark.parametrize(
    ("genre", "group", "complaint"),
    [
        ("Blues", "songs:Bob", r"line 3: 'b.flac' in the group 'songs:Bob' is the same recording as 'a.wav'"),
        ("Jazz", "songs:Ann", r"line 3: 'b.flac' is 'Jazz', and the same recording as 'a.wav', which is 'Blues'"),
        ("Blues", "songs:Ann", ""),
    ],
)
def test_one_recording_in_two_formats_is_one(tmp_path: Path, genre: str, group: str, complaint: str) -> None:
    samples = np.random.default_rng(0).normal(0, 3_000, 8_000).astype(np.int16)
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, samples, 8_000, "PCM_16")
    rows = [
        Row("a.wav", "songs", "music", "Blues", "songs:Ann", where="line 2"),
        Row("b.flac", "songs", "music", genre, group, where="line 3"),
    ]
    with pytest.raises(ManifestError, match=complaint) if complaint else contextlib.nullcontext():
        build(rows, tmp_path)
    one_group = [dataclasses.replace(row, group="songs:Ann", genre="Blues") for row in rows]
    assert len(build(one_group, tmp_path)) == 2
    with pytest.raises(ManifestError, match=complaint) if complaint else contextlib.nullcontext():
        build(rows, tmp_path)  # of what was decoded before, too


def build(rows: list[Row], folder: Path) -> WaveformStore:
    return targets.build_waveforms(rows, ["1", "2"], folder, folder / "kept", 8_000, lambda *said: None)


def test_silence_is_nobodys(tmp_path: Path) -> None:
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, np.zeros(8_000, np.int16), 8_000, "PCM_16")
    rows = [Row(name, "songs", "music", "Blues", f"songs:{name}") for name in ("a.wav", "b.flac")]
    assert len(build(rows, tmp_path)) == 2


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no disk here that is always full")
    (tmp_path / "waveforms.part").symlink_to(full)
    with pytest.raises(OSError, match="No space left"):
        keep_waveforms(["a"], [np.zeros(100_000, np.float32)], tmp_path, 8_000, "nothing")


def test_parts_are_all_that_the_teacher_says(asked: Asking, tmp_path: Path) -> None:
    file, _ = asked("whole")
    with np.load(file) as arrays:
        assert np.unique(arrays["track"]).tolist() == list(range(N_TRACKS))
        assert (np.diff(arrays["track"]) >= 0).all()
        assert len(arrays["logits"]) == len(arrays["embedding"]) == len(arrays["start_s"]) > 32
        teacher = targets.load_teacher(tmp_path / "teacher.py").teacher
        store = WaveformStore(tmp_path / "whole")
        for row in range(0, len(arrays["track"]), 7):
            begin = round(float(arrays["start_s"][row]) * 8_000)
            window = store.read(int(arrays["track"][row]), begin, 800)
            logits, embedding = teacher(torch.from_numpy(window[None]))
            assert arrays["logits"][row] == pytest.approx(logits[0].numpy(), abs=1e-3)
            assert arrays["embedding"][row] == pytest.approx(embedding[0].numpy(), abs=1e-3)


def test_parts_of_other_waveforms_are_not_taken(asked: Asking) -> None:
    asked("other", until=5, seed=1)
    again, tracks = asked("other", seed=2)
    assert tracks == list(range(N_TRACKS))
    assert again.read_bytes() == asked("fresh", seed=2)[0].read_bytes()


def test_parts_of_another_precision_are_not_mixed_in(asked: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    asked("mixed", until=5)
    accelerate = targets.accelerate

    def coarser(plugged: Plugged, example: torch.Tensor) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
        exact = accelerate(plugged, example)
        return lambda waveform: tuple(x.astype(np.float16).astype(np.float32) for x in exact(waveform))

    monkeypatch.setattr(targets, "accelerate", coarser)
    again, tracks = asked("mixed")
    assert tracks == list(range(N_TRACKS))
    assert again.read_bytes() == asked("fresh")[0].read_bytes()
