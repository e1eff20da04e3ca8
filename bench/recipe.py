"""The pipeline that this product renews, step by step as it was published, and its own faster form.

    librosa.load (22,050 Hz, mono) -> mel (40 bands, n_fft 1,024, hop 256) -> power_to_db (ref = max) -> 0..1
    -> tiled, or cut to the middle 224 frames (2.6 s) -> 224 x 224 -> ViT-B/16, float32, eager

`Original` loads the whole file and takes one file at a time. `OptimisedOriginal` loads the 30 s from the middle, in
four threads, and asks the network about eight files at once. Both get the very network that ours gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import torch
from torch import Tensor

from acoustic.network.vit import MelViT
from acoustic.records import N_FRAMES

RATE = 22_050
N_MELS, N_FFT, HOP = 40, 1_024, 256
SIDE = 224
MIDDLE_S = 30.0
N_THREADS, BATCH_SIZE = 4, 8


def load_whole(path: Path) -> np.ndarray:
    """The whole song, mono float32 (n,) at RATE."""
    return librosa.load(path, sr=RATE, mono=True)[0]


def load_middle(path: Path) -> np.ndarray:
    """The 30 s from the middle, or all of a shorter song; mono float32 (n,) at RATE."""
    start_s = max(0.0, (librosa.get_duration(path=path) - MIDDLE_S) / 2)
    return librosa.load(path, sr=RATE, mono=True, offset=start_s, duration=MIDDLE_S)[0]


def mel_of(samples: np.ndarray) -> np.ndarray:
    """(n,) -> (40, 1 + n // 256): 0 at the quietest, 1 at the loudest; all 0 where nothing is louder than the rest."""
    power = librosa.feature.melspectrogram(y=samples, sr=RATE, n_mels=N_MELS, n_fft=N_FFT, hop_length=HOP)
    db = librosa.power_to_db(power, ref=np.max)
    low, high = db.min(), db.max()
    return (db - low) / max(high - low, 1e-6)


def fitted(mel: np.ndarray) -> np.ndarray:
    """(40, n) -> (40, 224): the middle frames, or the mel repeated where there are fewer."""
    n = mel.shape[1]
    if n < N_FRAMES:
        return np.tile(mel, (1, -(-N_FRAMES // n)))[:, :N_FRAMES]
    start = (n - N_FRAMES) // 2
    return mel[:, start : start + N_FRAMES]


def image_of(samples: np.ndarray) -> Tensor:
    """(n,) -> the network's input (224, 224) float32, resized between neighbours."""
    mel = torch.from_numpy(np.ascontiguousarray(fitted(mel_of(samples)), dtype=np.float32))
    return torch.nn.functional.interpolate(mel[None, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]


@torch.inference_mode()
def probabilities(network: MelViT, images: Sequence[Tensor]) -> np.ndarray:
    """(B, n_classes) of B images."""
    return torch.softmax(network(torch.stack(list(images))).logits, dim=-1).numpy()


class Original:
    """The recipe as published. `network` in float32 and eval mode."""

    def __init__(self, network: MelViT) -> None:
        self._network = network

    def one(self, path: Path) -> np.ndarray:
        """(n_classes,) probabilities of one song."""
        return probabilities(self._network, [image_of(load_whole(path))])[0]

    def many(self, paths: Sequence[Path]) -> list[np.ndarray]:
        return [self.one(path) for path in paths]


class OptimisedOriginal:
    """Its own faster form; use it as a context manager, because it keeps threads."""

    def __init__(self, network: MelViT) -> None:
        self._network = network
        self._pool = ThreadPoolExecutor(N_THREADS, thread_name_prefix="original")

    def __enter__(self) -> OptimisedOriginal:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def one(self, path: Path) -> np.ndarray:
        return self.many([path])[0]

    def many(self, paths: Sequence[Path]) -> list[np.ndarray]:
        images = list(self._pool.map(lambda path: image_of(load_middle(path)), paths))
        parts = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
        return [row for part in parts for row in probabilities(self._network, part)]
