"""Frames of any sample type, cut and put together, are the samples that they hold."""

from __future__ import annotations

import av
import numpy as np
import pytest

from acoustic.signal.ffmpeg_decoder import FfmpegDecoder

N = 1_152
FORMATS = ("fltp", "flt", "dblp", "dbl", "s16p", "s16", "s32p", "s32", "u8p", "u8")


def decoder(n_channels: int) -> FfmpegDecoder:
    """One without a file, for a track of so many channels."""
    made = FfmpegDecoder.__new__(FfmpegDecoder)
    made.n_channels = n_channels
    return made


def frame_of(values: np.ndarray, kind: str) -> av.AudioFrame:
    """(channels, n) in [-1, 1] as a frame in the sample type `kind`, as FFmpeg stores it."""
    name = kind.removesuffix("p")
    if name in ("flt", "dbl"):
        stored = values.astype({"flt": np.float32, "dbl": np.float64}[name])
    elif name == "u8":
        stored = np.round(values * 127 + 128).astype(np.uint8)
    else:
        bits = int(name[1:])
        stored = np.round(values * (2.0 ** (bits - 1) - 1)).astype(f"int{bits}")
    if not kind.endswith("p"):
        stored = stored.T.reshape(1, -1)
    layout = "mono" if len(values) == 1 else "stereo"
    return av.AudioFrame.from_ndarray(np.ascontiguousarray(stored), format=kind, layout=layout)


def noise(n_channels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n_channels, N)).astype(np.float32)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_pieces_become_one_block(kind: str, n_channels: int) -> None:
    sounds = [noise(n_channels, seed) for seed in range(3)]
    frames = [frame_of(sound, kind) for sound in sounds]
    pieces = [(frames[0], 1_000, N), (None, 0, 40), (frames[1], 0, N), (frames[2], 0, 7)]
    block = decoder(n_channels)._block(pieces, 152 + 40 + N + 7)
    silence = np.zeros((n_channels, 40), np.float32)
    expected = np.concatenate([sounds[0][:, 1_000:], silence, sounds[1], sounds[2][:, :7]], axis=1).T
    assert block.dtype == np.float32
    step = {"u8": 1 / 64, "s16": 2.0**-14}.get(kind.removesuffix("p"), 2.0**-23)
    np.testing.assert_allclose(block, expected, atol=step, rtol=0)
    assert (block[152:192] == 0.0).all()


@pytest.mark.parametrize("kind", ["fltp", "s16"])
def test_channels_that_change_on_the_way_keep_the_tracks_number(kind: str) -> None:
    mono, stereo = noise(1, 0), noise(2, 1)
    pieces = [(frame_of(stereo, kind), 0, N), (frame_of(mono, kind), 0, N)]
    in_stereo = decoder(2)._block(pieces, 2 * N)
    np.testing.assert_allclose(in_stereo[:N], stereo.T, atol=1e-4)
    np.testing.assert_allclose(in_stereo[N:], np.repeat(mono.T, 2, axis=1), atol=1e-4)
    in_mono = decoder(1)._block(pieces, 2 * N)
    np.testing.assert_allclose(in_mono[:N, 0], stereo.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(in_mono[N:, 0], mono[0], atol=1e-4)


def test_full_scale_of_integers_is_one() -> None:
    ends = np.array([[-32_768, 0, 16_384]], np.int16)
    frame = av.AudioFrame.from_ndarray(ends, format="s16p", layout="mono")
    assert decoder(1)._block([(frame, 0, 3)], 3)[:, 0].tolist() == [-1.0, 0.0, 0.5]
