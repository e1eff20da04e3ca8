"""A waveform -> tempo, beat strength, low-frequency ratio; measured with librosa, only when somebody asks.

- `tempo_bpm`: the beat period on which the onset envelope repeats best, weighted by librosa's log-normal prior around
  120 BPM, which decides between a tempo, its half and its double; refined between the envelope's frames.
- `beat_strength`: the onset envelope's normalised autocorrelation at that period, from 0 to 1: the share of the
  envelope's variance that comes again one beat later ("pulse clarity", Lartillot et al. 2008). Clicks are near 1,
  noise near 0.
- `low_freq_ratio`: power below 200 Hz as a share of all power, the constant offset left out.
- `vocal_presence` is left None: it comes from the network's tags.

The first call in a process imports librosa and compiles parts of it, which takes seconds; `warm_up` does that ahead.
"""

from __future__ import annotations

import math

import numpy as np

from ..records import Descriptors, Waveform
from .segments import is_silent

HOP_S = 0.0116
"""Step of the onset envelope: 256 samples at 22,050 Hz."""
WINDOW_S = 8.0
"""Stretch over which the tempo counts as steady; autocorrelations of all stretches are added, a second apart."""
MIN_TEMPO_BPM, MAX_TEMPO_BPM = 30.0, 300.0
MIN_BEAT_STRENGTH = 0.15
"""Below it there is no tempo: noise stays under it (ten seconds of it: at most 0.14 in 15 draws)."""
MIN_ONSET_DB = 0.05
"""Standard deviation of the onset envelope below which nothing begins: a held tone has 0.001, noise 0.1, music more."""
LOW_HZ = 200.0


def measure(waveform: Waveform) -> Descriptors:
    """Descriptors of `waveform`, best of 30 to 60 s at 22,050 Hz; None for what the music does not answer.

    Silence has none of them; a tempo needs a beat that is felt (MIN_BEAT_STRENGTH) and six seconds of music.
    """
    samples = waveform.samples
    if not len(samples) or is_silent(samples):
        return Descriptors()
    samples = samples - samples.mean(dtype=np.float64).astype(np.float32)
    tempo_bpm, beat_strength = _beat(samples, waveform.sample_rate)
    return Descriptors(tempo_bpm, beat_strength, _low_freq_ratio(samples, waveform.sample_rate))


def warm_up() -> None:
    """Import and compile what the first `measure` needs, on a made-up beat; may run in a thread of its own."""
    rate = 22_050
    clicks = np.zeros(8 * rate, dtype=np.float32)
    clicks[:: rate // 2] = 1.0
    measure(Waveform(clicks, rate))


def _beat(samples: np.ndarray, rate: int) -> tuple[float | None, float | None]:
    """(tempo in BPM, beat strength); no tempo without a beat that is felt, neither if the music is too short."""
    import librosa  # costs a second at first import, so not before it is needed

    hop = round(HOP_S * rate)
    hops_per_s = rate / hop
    n_lags = round(60.0 / MIN_TEMPO_BPM * hops_per_s)
    envelope = librosa.onset.onset_strength(y=samples, sr=rate, hop_length=hop)
    n_window = min(round(WINDOW_S * hops_per_s), len(envelope))
    if n_window < 3 * n_lags:
        return None, None
    if np.std(envelope) < MIN_ONSET_DB:
        return None, 0.0
    stretches = librosa.util.frame(envelope, frame_length=n_window, hop_length=round(hops_per_s), axis=0)
    repeats = _autocorrelation(stretches, n_lags)
    guess_bpm = librosa.feature.tempo(
        tg=np.maximum(repeats, 0.0)[:, None], sr=rate, hop_length=hop, max_tempo=MAX_TEMPO_BPM
    ).item()
    lag, strength = _peak_near(repeats, round(60.0 * hops_per_s / guess_bpm))
    return (60.0 * hops_per_s / lag if strength >= MIN_BEAT_STRENGTH else None), strength


def _autocorrelation(stretches: np.ndarray, n_lags: int) -> np.ndarray:
    """(stretches, n) -> (n_lags + 1,): 1 at lag 0, summed over the stretches, the same for a beat at every lag."""
    import librosa

    n = stretches.shape[1]
    centred = stretches - stretches.mean(axis=1, keepdims=True)
    sums = librosa.autocorrelate(centred, axis=1, max_size=n_lags + 1).sum(axis=0)
    return sums / sums[0] * (n / (n - np.arange(n_lags + 1)))  # fewer products are summed at a longer lag


def _peak_near(values: np.ndarray, at: int) -> tuple[float, float]:
    """(place, height clipped to 0..1) of the parabola's top through values[at] and its neighbours, if it has one."""
    if 0 < at < len(values) - 1:
        before, here, after = (float(v) for v in values[at - 1 : at + 2])
        bend = before - 2.0 * here + after
        if bend < 0.0 and here >= max(before, after):
            shift = 0.5 * (before - after) / bend
            return at + shift, min(1.0, max(0.0, here - 0.25 * (before - after) * shift))
    return float(at), min(1.0, max(0.0, float(values[at])))


def _low_freq_ratio(samples: np.ndarray, rate: int) -> float:
    """Share of the power below LOW_HZ, on frames of about 0.19 s (5.4 Hz a bin)."""
    import librosa

    n_fft = 2 ** round(math.log2(0.186 * rate))
    power = np.square(np.abs(librosa.stft(samples, n_fft=n_fft))).sum(axis=1, dtype=np.float64)
    low = librosa.fft_frequencies(sr=rate, n_fft=n_fft) < LOW_HZ
    return float(power[low].sum() / power.sum())
