"""Augmentations of a crop's waveform: what happens to music between the musician and the file.

Speed and noise are ours; pitch, stretch, room, equaliser, band, clipping, codec and gain are audiomentations'
(Jordal et al.), imported when one of them is switched on. Everything is drawn from one numpy Generator, so a sample
depends on the seed alone. Waveforms are (n,) float32.
"""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from ..errors import AudioError, SettingsError
from ..signal.audio import find_audio
from .config import AugmentSpec

EQUALIZER_RATE_HZ = 2 * 4_404
"""least sample rate whose half is above the equaliser's highest peak; a filter beyond it would not be stable"""
MARGIN = 64
"""samples read beyond what a change of speed needs: the resampler's last output lies a little before its last input"""
INSTALL_HINT = "./start.sh train installs what training needs: see requirements-train.txt."

Transform = Callable[[np.ndarray, int], np.ndarray]
_GLOBAL_GENERATORS = threading.Lock()


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a crop is played: `speed` changes pitch and tempo together, `stretch` the tempo alone; 1 is as it is."""

    speed: float = 1.0
    stretch: float = 1.0

    def n_source(self, n: int) -> int:
        """Samples to read of the track for `n` samples of the crop."""
        return int(np.ceil(n * self.speed * self.stretch)) + MARGIN


class Augmenter:
    """The augmentations that a run switched on, for waveforms at one rate; `rooms` is a folder of impulse responses.

    Raises SettingsError for what a transform refuses (a rate or bitrate it does not know, no impulse response), before
    the first sample.
    """

    def __init__(self, spec: AugmentSpec, sample_rate: int, rooms: Path | None = None) -> None:
        self.spec = spec
        self.sample_rate = sample_rate
        self._transforms = _made(spec, sample_rate, rooms)

    def pace(self, rng: np.random.Generator) -> Pace:
        spec = self.spec
        speed_factor = float(rng.uniform(*spec.speed_range)) if rng.random() < spec.speed_p else 1.0
        stretch = float(rng.uniform(*spec.stretch_range)) if rng.random() < spec.stretch_p else 1.0
        return Pace(speed_factor, stretch)

    def __call__(
        self,
        samples: np.ndarray,
        n: int,
        pace: Pace,
        rng: np.random.Generator,
        noise: Callable[[np.random.Generator], np.ndarray] | None = None,
    ) -> np.ndarray:
        """`samples`, `pace.n_source(n)` of them, as n augmented ones, float32 and finite. `noise` draws a recording to
        be mixed in; None where this crop shall have none."""
        if pace.speed != 1.0:
            samples = speed(samples, pace.speed)
        samples = self._maybe("pitch", samples, rng)
        if pace.stretch != 1.0:
            samples = self._stretched(samples, pace.stretch, rng)
        samples = fit(samples, n)
        samples = self._maybe("room", samples, rng)
        if noise is not None and rng.random() < self.spec.noise_p:
            samples = add_noise(samples, noise(rng), float(rng.uniform(*self.spec.noise_snr_db)))
        for name in ("equalizer", "band", "clipping", "codec", "gain"):
            samples = self._maybe(name, samples, rng)
        return np.ascontiguousarray(samples, dtype=np.float32)

    def _maybe(self, name: str, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        p = getattr(self.spec, f"{name}_p")
        if p <= 0 or rng.random() >= p:
            return samples
        with seeded(rng):
            out = self._transforms[name](samples, self.sample_rate)
        return fit(out, len(samples)) if np.isfinite(out).all() else samples

    def _stretched(self, samples: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
        stretch = self._transforms["stretch"]
        with seeded(rng):
            stretch.parameters = {"should_apply": True, "rate": factor}  # drawn before: it says how much to read
            return stretch.apply(samples, self.sample_rate)


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """The global generators of `random` and `numpy.random`, which audiomentations draws from, seeded from `rng`;
    afterwards they go on where they were. Threads wait for one another."""
    seed = int(rng.integers(2**32))
    with _GLOBAL_GENERATORS:
        kept, kept_numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(kept_numpy)


# --- one transform each ---


def speed(samples: np.ndarray, factor: float, quality: str = "QQ") -> np.ndarray:
    """`samples` played `factor` times as fast, pitch and tempo together: (n / factor,). `quality` is soxr's."""
    return soxr.resample(samples, factor, 1.0, quality=quality)


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """`samples` + `noise` (tiled or cut to length), scaled so that the power ratio is `snr_db`; silence stays
    silence.
    """
    noise = np.resize(noise, samples.shape)
    power, noise_power = float(np.mean(samples**2)), float(np.mean(noise**2))
    if power <= 0 or noise_power <= 0:
        return samples
    return samples + noise * np.float32(np.sqrt(power / noise_power * 10 ** (-snr_db / 10)))


def same_energy(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`samples` scaled to the energy (sum of squares) of `reference`; silence stays silence."""
    energy, wanted = (float(np.sum(np.square(x, dtype=np.float64))) for x in (samples, reference))
    return samples * np.float32(np.sqrt(wanted / energy)) if energy > 0 else samples


def fit(samples: np.ndarray, n: int) -> np.ndarray:
    """The first n samples; what is missing is silence."""
    return samples[:n] if len(samples) >= n else np.pad(samples, (0, n - len(samples)))


# --- what audiomentations is asked for ---


def _made(spec: AugmentSpec, sample_rate: int, rooms: Path | None) -> dict[str, Any]:
    """The transforms that are switched on, each tried once on a second of noise."""
    made = {}
    rng = np.random.default_rng(0)
    example = rng.normal(0, 0.1, sample_rate).astype(np.float32)
    for name, make in _MAKERS.items():
        if getattr(spec, f"{name}_p") <= 0:
            continue
        try:
            made[name] = make(spec, sample_rate, rooms)
            with seeded(rng):
                made[name](example, sample_rate)
        except SettingsError:
            raise
        except ImportError as error:
            raise SettingsError(f"augment: {name} needs a package: {error}", INSTALL_HINT) from error
        except Exception as error:  # each transform has errors of its own for what it refuses
            raise SettingsError(f"augment: {name} cannot be used at {sample_rate} Hz: {error}") from error
    return made


def _pitch(spec: AugmentSpec, sample_rate: int, rooms: Path | None) -> Transform:
    from audiomentations import PitchShift

    return PitchShift(*spec.pitch_semitones, p=1.0)


def _stretch(spec: AugmentSpec, sample_rate: int, rooms: Path | None) -> Transform:
    from audiomentations import TimeStretch

    return TimeStretch(*spec.stretch_range, leave_length_unchanged=False, p=1.0)


def _room(spec: AugmentSpec, sample_rate: int, rooms: Path | None) -> Transform:
    """Convolution with an impulse response that keeps the energy: audiomentations sets every peak to 0.5."""
    from audiomentations import ApplyImpulseResponse

    try:
        files = [str(path) for path in find_audio(rooms)] if rooms is not None else []
    except AudioError as error:
        raise SettingsError(f"rooms: {error.message}", error.hint) from None
    if not files:
        raise SettingsError(
            f"rooms: no impulse response in {rooms}", "Name a folder of audio files, or set room_p to 0."
        )
    convolve = ApplyImpulseResponse(files, p=1.0, lru_cache_size=len(files), leave_length_unchanged=False)
    impulse = np.zeros(sample_rate, np.float32)
    impulse[0] = 1.0
    # all are read now, by the names it will ask for: one that cannot be is refused here, and no step waits for a file
    for file in convolve.ir_files:
        convolve.parameters = {"should_apply": True, "ir_file_path": file}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has to be resampled
            try:
                heard = convolve.apply(impulse, sample_rate)
            except Exception as error:  # whatever librosa's readers raise
                raise SettingsError(f"rooms: {file} cannot be read: {error}") from error
        if not heard.any():
            raise SettingsError(f"rooms: {file} is silent")
    return lambda samples, rate: same_energy(convolve(samples, rate), samples)


def _equalizer(spec: AugmentSpec, sample_rate: int, rooms: Path | None) -> Transform:
    from audiomentations import SevenBandParametricEQ

    if sample_rate < EQUALIZER_RATE_HZ:
        raise SettingsError(
            f"augment: the equaliser needs a sample rate of {EQUALIZER_RATE_HZ} Hz or more, not {sample_rate}",
            "Set equalizer_p to 0; tilt_p does something alike on the mel.",
        )
    return SevenBandParametricEQ(*spec.equalizer_db, p=1.0)


def _band(spec: AugmentSpec, sample_rate: int, rooms: Path | None) -> Transform:
    from audiomentations import HighPassFilter, LowPassFilter

    high_pass = HighPassFilter(*spec.band_low_hz, min_rolloff=12, max_rolloff=36, p=1.0)
    low_pass = LowPassFilter(*spec.band_high_hz, min_rolloff=12, max_rolloff=36, p=1.0)
    return lambda samples, rate: low_pass(high_pass(samples, rate), rate)


def _clipping(spec: AugmentSpec, sample_rate: int, rooms: Path | None) -> Transform:
    from audiomentations import ClippingDistortion

    return ClippingDistortion(*spec.clipping_percent, p=1.0)


def _codec(spec: AugmentSpec, sample_rate: int, rooms: Path | None) -> Transform:
    from audiomentations import Mp3Compression

    return Mp3Compression(*spec.codec_kbps, backend="fast-mp3-augment", p=1.0)


def _gain(spec: AugmentSpec, sample_rate: int, rooms: Path | None) -> Transform:
    from audiomentations import Gain

    return Gain(*spec.gain_db, p=1.0)


_MAKERS: dict[str, Callable[[AugmentSpec, int, Path | None], Any]] = {
    "pitch": _pitch,
    "stretch": _stretch,
    "room": _room,
    "equalizer": _equalizer,
    "band": _band,
    "clipping": _clipping,
    "codec": _codec,
    "gain": _gain,
}
