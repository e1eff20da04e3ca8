"""Teachers as they are plugged in: by a Python file, or by the folder of a spectrogram transformer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, BertConfig

from acoustic.errors import SettingsError
from acoustic.training import teachers
from acoustic.training.config import TeacherSpec
from acoustic.training.targets import teacher_stamp
from acoustic.training.teachers import Listener, accelerate, grid, load_teacher, windows_of
from tests.training.test_targets import TEACHER

TAGS = ("Music", "Speech", "Dog")
RATE = 16_000


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    file = tmp_path / "teacher.py"
    file.write_text(TEACHER)
    return file


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AST with random weights, saved as `transformers` saves it."""
    folder = tmp_path_factory.mktemp("ast")
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_mel_bins=32,
        max_length=128,
        id2label=dict(enumerate(TAGS)),
        label2id={tag: i for i, tag in enumerate(TAGS)},
    )
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=128, sampling_rate=RATE).save_pretrained(folder)
    return folder


def hiss(n: int, seed: int = 0, n_rows: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (n_rows, n)).astype(np.float32)


# --- a Python file ---


def test_a_teacher_is_plugged_in_by_path(teacher_file: Path) -> None:
    plugged = load_teacher(teacher_file)
    assert (plugged.sample_rate, plugged.tags) == (8000, ("low", "high"))
    example = torch.randn(2, 800, generator=torch.Generator().manual_seed(0))
    logits, embedding = accelerate(plugged, example)(example.numpy())
    expected = plugged.teacher(example)
    assert logits == pytest.approx(expected[0].numpy(), abs=1e-3)
    assert embedding == pytest.approx(expected[1].numpy(), abs=1e-3)
    with pytest.raises(SettingsError, match="no teacher"):
        load_teacher(teacher_file.parent / "none.py")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("SAMPLE_RATE = 8000", "needs Teacher"),
        ("class Teacher: tags = ('a',)", "needs SAMPLE_RATE"),
        ("SAMPLE_RATE = 8000\nclass Teacher: pass", "no names"),
        ("import no_such_module", "cannot be made: ModuleNotFoundError"),
        ("import sys\nsys.exit(0)", r"cannot be made: SystemExit: 0 \(teacher\.py, line 2\)"),
        ("def broken(", "cannot be made: SyntaxError"),
        ("SAMPLE_RATE = 'x'\nclass Teacher: tags = ('a',)", r"cannot be made: ValueError.*\(teachers.py"),
        ("SAMPLE_RATE = 8000\nclass Teacher: tags = ()", "no names"),
        (
            "SAMPLE_RATE = 8000\nclass Teacher: pass\ndef labels(): return 1 / 0",
            r"ZeroDivisionError.*teacher.py, line 3",
        ),
        ("SAMPLE_RATE = 8000\nclass Teacher:\n def __init__(self, needed): pass", "cannot be made: TypeError"),
    ],
)
def test_a_file_that_is_no_teacher_is_refused(tmp_path: Path, source: str, what: str) -> None:
    (tmp_path / "teacher.py").write_text(source)
    with pytest.raises(SettingsError, match=what):
        load_teacher(tmp_path / "teacher.py")


def test_a_teacher_that_cannot_answer_is_refused() -> None:
    for broken in (object(), lambda x: x, lambda x: (torch.zeros(2, 2, requires_grad=True) * 1, 3)):
        with pytest.raises(SettingsError, match="cannot answer"):
            accelerate(teachers.Plugged(broken, 8_000, ("a", "b"), None), torch.zeros(3, 100))


@pytest.mark.parametrize(
    ("tags", "value", "what"), [(("a",), 0.0, "names 1 logits and gives 2"), (("a", "b"), float("nan"), "no numbers")]
)
def test_a_teacher_whose_answers_are_unsound_is_refused(tags: tuple[str, ...], value: float, what: str) -> None:
    def answer(waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((len(waveform), 2), value), torch.zeros(len(waveform), 3)

    with pytest.raises(SettingsError, match=what):
        accelerate(teachers.Plugged(answer, 8_000, tags, None), torch.zeros(2, 100))


def test_a_graph_that_says_something_else_is_not_used(teacher_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(function: object, example: torch.Tensor, hints: object) -> object:
        return {"f32": lambda x: (np.zeros((len(x), 2), np.float32), np.zeros((len(x), 6), np.float32))}

    monkeypatch.setattr(teachers, "_openvino_graphs", wrong)
    plugged, x = load_teacher(teacher_file), torch.from_numpy(hiss(800, n_rows=2))
    assert accelerate(plugged, x)(x.numpy())[0] == pytest.approx(plugged.teacher(x)[0].numpy())


# --- windows ---


@given(st.integers(100, 5000), st.integers(10, 100), st.integers(1, 100))
def test_the_grid_stays_inside_and_covers_the_track(n: int, window: int, hop: int) -> None:
    starts = grid(n, window, hop)
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert 0 <= n - (starts[-1] + window) <= max(hop, window / 6)


@given(st.integers(1, 500), st.integers(1, 200), st.integers(1, 200))
def test_windows_are_what_stands_there(n: int, window: int, hop: int) -> None:
    samples = np.arange(n, dtype=np.float32)
    starts, windows = windows_of(samples, window, hop)
    assert windows.shape == (len(starts), window)
    for start, one in zip(starts, windows, strict=True):
        assert one.tolist() == [(start + i) % n for i in range(window)]  # a short track is repeated
    assert n < window or starts[-1] + window <= n


# --- one crop after the other ---


def test_a_listener_says_the_mean_of_the_windows(teacher_file: Path) -> None:
    """20,000 samples at 16 kHz are 10,000 at the teacher's 8 kHz: two windows of 0.5 s side by side, the third half
    over."""
    spec = TeacherSpec("t", teacher_file.name, window_s=0.5, hop_s=0.1)
    listener = Listener(spec, teacher_file.parent, 20_000, 16_000)
    samples = hiss(20_000)[0]
    heard = soxr.resample(samples, 16_000, 8_000)
    windows = np.stack([heard[:4_000], heard[4_000:8_000], heard[-4_000:]])
    logits, embedding = load_teacher(teacher_file).teacher(torch.from_numpy(windows))
    said = listener(samples)
    assert said[0] == pytest.approx(logits.numpy().mean(0), abs=1e-3)
    assert said[1] == pytest.approx(embedding.numpy().mean(0), abs=1e-3)


def test_a_crop_shorter_than_a_window_is_repeated(teacher_file: Path) -> None:
    listener = Listener(TeacherSpec("t", teacher_file.name, window_s=1.0), teacher_file.parent, 4_000, 8_000)
    samples = hiss(4_000)[0]
    expected = load_teacher(teacher_file).teacher(torch.from_numpy(np.tile(samples, 2))[None])[0]
    assert listener(samples)[0] == pytest.approx(expected[0].numpy(), abs=1e-3)


# --- a spectrogram transformer ---


def test_a_transformer_answers_as_its_own_library_does(transformer: Path) -> None:
    plugged = load_teacher(transformer)
    assert (plugged.sample_rate, plugged.tags, plugged.n_frames) == (RATE, TAGS, 128)
    model = ASTForAudioClassification.from_pretrained(transformer).eval()
    extractor = ASTFeatureExtractor.from_pretrained(transformer)
    x = hiss(20_000, n_rows=3)
    inputs = extractor(list(x), sampling_rate=RATE, return_tensors="pt")["input_values"].float()
    with torch.inference_mode():
        expected = model(inputs, output_hidden_states=True)
    logits, embedding = plugged.teacher(torch.from_numpy(x))
    assert logits.numpy() == pytest.approx(expected.logits.numpy(), abs=1e-5)
    assert embedding.shape == (3, 32)
    assert model.classifier(embedding.clone()).detach().numpy() == pytest.approx(expected.logits.numpy(), abs=1e-5)


def test_a_transformer_goes_through_openvino(transformer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    plugged = load_teacher(transformer)
    asked = accelerate(plugged, torch.from_numpy(hiss(20_000, n_rows=2)))
    x = hiss(20_000, 1, n_rows=3)
    expected = plugged.teacher(torch.from_numpy(x))

    def unasked(mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError("the eager network was asked")

    monkeypatch.setattr(plugged.teacher, "network", unasked)
    logits, embedding = asked(x)
    assert logits == pytest.approx(expected[0].numpy(), abs=1e-4)
    assert embedding == pytest.approx(expected[1].numpy(), abs=1e-4)


def test_a_folder_without_a_safe_transformer_is_refused(transformer: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(transformer, tmp_path / name))

    pickled = copy("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    deaf = copy("deaf")
    (deaf / "preprocessor_config.json").unlink()
    torn = copy("torn")
    (torn / "model.safetensors").write_bytes(b"torn")
    other = tmp_path / "other"
    BertConfig().save_pretrained(other)
    code = copy("code")
    settings = json.loads((code / "config.json").read_text())
    (code / "config.json").write_text(json.dumps({**settings, "model_type": "mine", "auto_map": {"AutoConfig": "a.B"}}))
    (tmp_path / "empty").mkdir()
    for folder, complaint in (
        (pickled, "no .*safetensors"),
        (deaf, "no preprocessor_config.json"),
        (torn, "cannot be loaded"),
        (other, "is a 'bert'"),
        (code, "no teacher in"),
        (tmp_path / "empty", "no teacher in"),
    ):
        with pytest.raises(SettingsError, match=complaint) as caught:
            load_teacher(folder)
        assert caught.value.hint


def test_other_weights_are_another_teacher(transformer: Path, tmp_path: Path) -> None:
    shutil.copytree(transformer, tmp_path / "ast")
    store, spec = SimpleNamespace(stamp="s"), TeacherSpec("t", "ast")
    before = teacher_stamp(spec, store, tmp_path)  # type: ignore[arg-type]
    assert teacher_stamp(spec, store, tmp_path) == before  # type: ignore[arg-type]
    weights = tmp_path / "ast" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert teacher_stamp(spec, store, tmp_path) != before  # type: ignore[arg-type]
