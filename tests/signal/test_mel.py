"""The log-mel: parity with librosa, independence of batch neighbours, and physics."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acoustic.records import N_FRAMES, MelSpec
from acoustic.signal import mel
from acoustic.signal.mel import _filters, band_centres_hz, log_mel, mel_power, normalize

TOLERANCE_DB = 2e-3
SPECS = [
    MelSpec(),
    MelSpec(n_mels=128),
    MelSpec(sample_rate=16_000, n_fft=1_024, hop_length=512, n_mels=64, fmin_hz=0.0, fmax_hz=8_000.0),
    MelSpec(mel_scale="htk", fmin_hz=50.0, fmax_hz=8_000.0, top_db=60.0),
]
SMALL = MelSpec(sample_rate=8_000, n_fft=256, hop_length=64, n_mels=32, fmax_hz=4_000.0)


def music_like(spec: MelSpec, seed: int) -> np.ndarray:
    """Harmonics over noise with a swell and a gap of digital silence: (n_samples,) float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(spec.n_samples) / spec.sample_rate
    tone = sum(np.sin(2 * np.pi * 110.0 * (seed + 1) * h * t) / h for h in range(1, 9))
    x = (0.2 * tone + 0.02 * rng.standard_normal(spec.n_samples)) * (0.3 + 0.7 * np.sin(np.pi * t / t[-1]))
    x[spec.n_samples // 3 : spec.n_samples // 3 + 4 * spec.n_fft] = 0.0
    return x.astype(np.float32)


def librosa_mel(x: np.ndarray, spec: MelSpec) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=x,
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
        fmin=spec.fmin_hz,
        fmax=spec.fmax_hz,
        htk=spec.mel_scale == "htk",
        center=True,
        pad_mode="constant",
    )
    return librosa.power_to_db(power[:, :N_FRAMES], ref=1.0, top_db=spec.top_db)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.sample_rate}-{s.n_mels}-{s.mel_scale}")
def test_parity_with_librosa(spec: MelSpec) -> None:
    segments = np.stack([music_like(spec, seed) for seed in range(3)])
    ours = log_mel(segments, spec)
    reference = np.stack([librosa_mel(segment, spec) for segment in segments])
    assert ours.shape == (3, spec.n_mels, N_FRAMES)
    assert ours.dtype == np.float32
    assert np.ptp(reference) > 50.0, "the reference must not be flat"
    np.testing.assert_allclose(ours, reference, atol=TOLERANCE_DB, rtol=0)


def test_parity_of_a_segment_with_a_loud_end() -> None:
    """librosa's 225th frame does not set our clamp: the frames that we keep do."""
    x = np.full(SMALL.n_samples, 0.0, dtype=np.float32)
    x[: SMALL.n_samples // 2] = 1e-4 * np.random.default_rng(0).standard_normal(SMALL.n_samples // 2)
    x[-1] = 1.0
    ours = log_mel(x[None], SMALL)[0]
    np.testing.assert_allclose(ours, librosa_mel(x, SMALL), atol=TOLERANCE_DB, rtol=0)
    whole = librosa.feature.melspectrogram(
        y=x, sr=8_000, n_fft=256, hop_length=64, n_mels=32, fmin=20.0, fmax=4_000.0, pad_mode="constant"
    )
    assert whole[:, N_FRAMES].max() > 1.5 * whole[:, :N_FRAMES].max(), "the dropped frame is the loudest here"


BANKS = [
    *SPECS,
    SMALL,
    MelSpec(sample_rate=44_100, n_fft=4_096, n_mels=256, fmin_hz=0.0, fmax_hz=22_050.0),
    MelSpec(fmin_hz=1_500.0, fmax_hz=6_000.0, n_mels=40),
    MelSpec(fmin_hz=1_000.0, fmax_hz=99_000.0, n_mels=20, mel_scale="htk"),
    MelSpec(n_fft=256, n_mels=128, fmin_hz=0.0),  # bands between two bins: empty there as here
]


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("spec", BANKS, ids=lambda s: f"{s.sample_rate}-{s.n_fft}-{s.n_mels}-{s.mel_scale}")
def test_the_triangles_are_librosas(spec: MelSpec) -> None:
    how = {"fmin": spec.fmin_hz, "fmax": min(spec.fmax_hz, spec.sample_rate / 2), "htk": spec.mel_scale == "htk"}
    reference = librosa.filters.mel(sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.n_mels, **how)
    ours = _filters(spec)
    assert ours.dtype == np.float32
    assert ours.max() > 1e-3, "the triangles have an area of 1 over Hz, and are not empty"
    np.testing.assert_allclose(ours, reference, rtol=1e-6, atol=1e-6 * reference.max())
    centres = librosa.mel_frequencies(spec.n_mels + 2, **how)[1:-1]
    np.testing.assert_allclose(band_centres_hz(spec), centres, rtol=1e-12)


@pytest.mark.parametrize(
    "spec", [*BANKS, MelSpec(n_mels=1)], ids=lambda s: f"{s.sample_rate}-{s.n_fft}-{s.n_mels}-{s.mel_scale}"
)
def test_bands_are_sums_over_the_triangles(spec: MelSpec) -> None:
    power = np.random.default_rng(0).random((17, spec.n_fft // 2 + 1), np.float32)
    expected = power.astype(np.float64) @ _filters(spec).T.astype(np.float64)
    np.testing.assert_allclose(mel._banded(power, spec), expected.T, rtol=2e-6, atol=1e-12)


def test_segments_together_are_segments_alone() -> None:
    """They are taken one by one, each a block of frames at a time."""
    x = np.stack([music_like(SMALL, seed) for seed in range(3)])
    together = mel_power(x, SMALL)
    assert together.shape == (3, SMALL.n_mels, N_FRAMES + 1)
    np.testing.assert_array_equal(together, np.concatenate([mel_power(one[None], SMALL) for one in x]))


def test_blocks_of_frames_have_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.stack([music_like(SMALL, seed) for seed in range(2)])
    whole = log_mel(x, SMALL)
    for n in (1, 7, 100_000):
        monkeypatch.setattr(mel, "BLOCK_FRAMES", n)
        np.testing.assert_allclose(log_mel(x, SMALL), whole, atol=1e-4, rtol=0)


def test_what_is_given_is_left_alone() -> None:
    x = music_like(SMALL, 1)[None]
    kept = x.copy()
    mels = log_mel(x, SMALL)
    normalize(mels, SMALL)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(mels, log_mel(kept, SMALL))


@pytest.mark.parametrize("n", [64, 1_000, 5 * SMALL.n_samples + 17])
def test_other_lengths_keep_all_centred_frames(n: int) -> None:
    x = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    assert log_mel(x, SMALL).shape == (2, SMALL.n_mels, 1 + n // SMALL.hop_length)


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 50), min_size=1, max_size=4),
    place=st.integers(0, 4),
    gain_db=st.floats(-80, 20),
)
def test_batch_neighbours_change_nothing(seeds: list[int], place: int, gain_db: float) -> None:
    ours = music_like(SMALL, 3)
    batch = [music_like(SMALL, seed) * np.float32(10 ** (gain_db / 20)) for seed in seeds]
    place = min(place, len(batch))
    batch.insert(place, ours)
    alone = log_mel(ours[None], SMALL)
    together = log_mel(np.stack(batch), SMALL)[place : place + 1]
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    np.testing.assert_allclose(normalize(together, SMALL), normalize(alone, SMALL), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(gain_db=st.floats(-12, 40))
def test_gain_is_an_offset(gain_db: float) -> None:
    x = np.random.default_rng(1).standard_normal((1, SMALL.n_samples)).astype(np.float32) * 0.1
    louder = log_mel(x * np.float32(10 ** (gain_db / 20)), SMALL)
    np.testing.assert_allclose(louder - log_mel(x, SMALL), gain_db, atol=2e-3, rtol=0)
    np.testing.assert_allclose(normalize(louder, SMALL), normalize(log_mel(x, SMALL), SMALL), atol=2e-4, rtol=0)


def test_twice_the_amplitude_is_6_02_db() -> None:
    x = music_like(SMALL, 0)[None]
    difference = log_mel(2 * x, SMALL) - log_mel(x, SMALL)
    np.testing.assert_allclose(difference, 20 * np.log10(2.0), atol=1e-4, rtol=0)


@settings(max_examples=40, deadline=None)
@given(hz=st.floats(150, 9_000), spec=st.sampled_from([SPECS[0], SPECS[1], SPECS[3]]))
def test_a_tone_peaks_in_its_band(hz: float, spec: MelSpec) -> None:
    hz = min(hz, 0.95 * spec.fmax_hz)
    t = np.arange(spec.n_samples) / spec.sample_rate
    heard = log_mel(np.sin(2 * np.pi * hz * t, dtype=np.float32)[None], spec)[0, :, 20:-20].mean(axis=1)
    centres = band_centres_hz(spec)
    assert centres.shape == (spec.n_mels,)
    peak, nearest = int(heard.argmax()), int(np.abs(centres - hz).argmin())
    # between two centres the triangles cross off the middle, and one bin of the STFT is a band wide at the bottom
    assert abs(peak - nearest) <= 1 + (spec.sample_rate / spec.n_fft > np.diff(centres)[min(nearest, 90)])


def test_range_is_top_db_below_each_segments_own_maximum() -> None:
    spec = MelSpec(sample_rate=8_000, n_fft=256, hop_length=64, n_mels=32, fmax_hz=4_000.0, top_db=40.0)
    mels = log_mel(np.stack([music_like(spec, 0), 1e-3 * music_like(spec, 1)]), spec)
    np.testing.assert_allclose(np.ptp(mels, axis=(1, 2)), 40.0, atol=1e-4)


def test_silence_is_flat_and_finite() -> None:
    mels = log_mel(np.zeros((2, SMALL.n_samples), dtype=np.float32), SMALL)
    np.testing.assert_allclose(mels, -100.0, atol=1e-4, rtol=0)
    assert np.ptp(mels) == 0.0
    for normalization in ("mean", "minmax", "fixed"):
        spec = MelSpec(normalization=normalization, mean_db=-30.0)
        assert np.isfinite(normalize(mels, spec)).all()


def test_normalizations_do_what_they_say() -> None:
    mels = log_mel(np.stack([music_like(SMALL, 0), 0.1 * music_like(SMALL, 4)]), SMALL)
    mean = normalize(mels, MelSpec(normalization="mean", std_db=10.0))
    np.testing.assert_allclose(mean.mean(axis=(1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(mean.std(axis=(1, 2)), mels.std(axis=(1, 2)) / 10.0, rtol=1e-5)
    minmax = normalize(mels, MelSpec(normalization="minmax"))
    np.testing.assert_allclose(minmax.min(axis=(1, 2)), 0.0, atol=0)
    np.testing.assert_allclose(minmax.max(axis=(1, 2)), 1.0, atol=1e-6)
    fixed = normalize(mels, MelSpec(normalization="fixed", mean_db=-40.0, std_db=20.0))
    np.testing.assert_allclose(fixed, (mels + 40.0) / 20.0, rtol=1e-5, atol=1e-5)
