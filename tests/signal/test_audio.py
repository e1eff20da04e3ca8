"""What a valid file gives: exact slices in every format, lengths, downmix, warnings, names, folders."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from acoustic.errors import AudioError, SettingsError, StorageError
from acoustic.records import Waveform
from acoustic.settings import Settings
from acoustic.signal import audio
from acoustic.signal.mpeg import frame_length
from acoustic.signal.reader import DecodingError
from tests import makers

RATE = 22_050
SLICED = Settings(whole_file_s=4.0)  # so that short test files take the path of long ones
SECONDS = 14.0
EXACT = {"wav", "float.wav", "24.rf64", "w64", "flac", "aiff", "au", "caf", "alac.m4a", "flac.mka"}
KINDS = [pytest.param(kind, marks=() if makers.can_write(kind) else pytest.mark.skip) for kind in makers.WRITERS]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("songs")
    samples = makers.music(SECONDS)
    return {k: makers.write_as(k, folder / f"song.{k}", samples) for k in makers.WRITERS if makers.can_write(k)}


def codes(reader: audio.AudioReader) -> list[str]:
    return [warning.code for warning in reader.warnings()]


# --- every format ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_file_is_what_was_written(songs: dict[str, Path], kind: str) -> None:
    rate = 48_000 if kind in ("opus", "webm") else makers.RATE
    written = makers.music(SECONDS).mean(axis=1)
    got = audio.load(songs[kind], None)
    assert got.sample_rate == rate
    assert got.samples.dtype == np.float32
    n = min(len(got.samples), len(written))
    if kind in EXACT:
        assert len(got.samples) == len(written)
        np.testing.assert_allclose(got.samples, written, atol=2e-4)
    else:  # lossy: the same sound, some codecs' delay later (wmav2 loses its first frame; raw AAC keeps the priming)
        assert abs(len(got.samples) - len(written)) <= 3_000
        lag = best_lag(written[:n], got.samples[:n])
        assert abs(lag) <= 2_200
        if kind in ("ogg", "opus", "mp3", "m4a", "webm"):
            assert abs(lag) <= 2


def best_lag(a: np.ndarray, b: np.ndarray) -> int:
    """Samples by which `b` comes later than `a`."""
    n = 1 << (len(a) + len(b)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(b, n) * np.conj(np.fft.rfft(a, n)), n)
    peak = int(np.argmax(correlation))
    return peak - n if peak > n // 2 else peak


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_is_that_slice_of_the_whole(songs: dict[str, Path], kind: str) -> None:
    whole = audio.load(songs[kind], RATE, Settings()).samples
    with audio.open_audio(songs[kind], RATE, SLICED) as reader:
        assert reader.duration_s == pytest.approx(len(whole) / RATE, abs=2e-3)
        # back and forth, so that no read leans on the one before
        for start_s, length_s in ((9.0, 2.0), (0.0, 1.5), (5.4321, 3.0), (0.25, 1.0), (11.0, 2.5), (2.7182, 0.01)):
            got = reader.read(start_s, length_s)
            first = round(start_s * RATE)
            expected = whole[first : first + round(length_s * RATE)]
            assert len(got.samples) == len(expected)
            np.testing.assert_allclose(got.samples, expected, atol=2e-5)


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(["wav", "flac", "mp3", "ogg", *(["vbr.mp3"] if makers.can_write("vbr.mp3") else [])]),
    start_s=st.floats(0, SECONDS + 1),
    length_s=st.floats(0, 5),
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000, 44_101]),
)
def test_any_slice_has_the_right_length_and_content(
    songs: dict[str, Path], kind: str, start_s: float, length_s: float, rate: int
) -> None:
    whole = load_once(songs[kind], rate)
    with audio.open_audio(songs[kind], rate, SLICED) as reader:
        got = reader.read(start_s, length_s).samples
    expected = whole.samples[round(start_s * rate) :][: round(length_s * rate)]
    assert abs(len(got) - len(expected)) <= 1
    n = min(len(got), len(expected))
    np.testing.assert_allclose(got[:n], expected[:n], atol=5e-5)


@pytest.mark.parametrize("kind", [k for k in ("ogg", "opus", "mp3", "vbr.mp3", "noxing.mp3") if makers.can_write(k)])
def test_slices_all_along_the_track_stand_where_they_should(songs: dict[str, Path], kind: str) -> None:
    """FFmpeg's time stamps of single Vorbis blocks are wrong by part of a window; no slice may start there."""
    whole = load_once(songs[kind], RATE).samples
    for start_s in np.arange(0.0, SECONDS - 0.3, 0.15):
        with audio.open_audio(songs[kind], RATE, SLICED) as reader:
            got = reader.read(float(start_s), 0.2).samples
        first = round(float(start_s) * RATE)
        np.testing.assert_allclose(got, whole[first : first + len(got)], atol=1e-4, err_msg=f"{start_s:.2f} s")


_LOADED: dict[tuple[Path, int], Waveform] = {}


def load_once(path: Path, rate: int) -> Waveform:
    if (path, rate) not in _LOADED:
        _LOADED[path, rate] = audio.load(path, rate)
    return _LOADED[path, rate]


def test_the_suffix_says_nothing(songs: dict[str, Path], tmp_path: Path) -> None:
    for kind, path in songs.items():
        lying = tmp_path / f"{kind}.txt"
        lying.write_bytes(path.read_bytes())
        with audio.open_audio(lying, RATE) as reader, audio.open_audio(path, RATE) as honest:
            assert dataclasses.replace(reader.info) == honest.info


def test_info_says_what_the_header_says(songs: dict[str, Path]) -> None:
    with audio.open_audio(songs["flac"], RATE) as reader:
        info = reader.info
    assert (info.container, info.codec, info.decoder) == ("FLAC", "PCM_16", "libsndfile")
    assert (info.sample_rate, info.n_channels, info.duration_s) == (makers.RATE, 2, SECONDS)
    assert info.n_bytes == songs["flac"].stat().st_size
    with audio.open_audio(songs["aac"], RATE) as reader:
        assert reader.info.duration_s is None


# --- two decoders for MP3 ---


def decoder_of(path: Path) -> str:
    with audio.open_audio(path, RATE) as reader:
        return reader.info.decoder


def test_libsndfile_reads_only_mp3_that_tells_its_length(songs: dict[str, Path], tmp_path: Path) -> None:
    whole = songs["mp3"].read_bytes()
    first, _, _ = frame_length(whole, 0)
    tag = b"ID3\x04\0\0\0\0\x07\x68" + bytes(1_000)
    lyrics = b"LYRICSBEGIN" + bytes(600) + b"TAG" + bytes(125)
    cases = {
        "whole": (whole, "libsndfile"),
        "behind a tag": (tag + whole, "libsndfile"),
        "before tags": (whole + lyrics, "libsndfile"),
        "without its first frame": (whole[first:], "ffmpeg"),
        "cut": (whole[:-30_000], "ffmpeg"),
        "cut by a byte": (whole[:-1], "ffmpeg"),
        "longer than it says": (whole + whole, "ffmpeg"),
        "before many tags": (whole + 10 * lyrics, "ffmpeg"),
        "behind rubbish": (bytes(700) + whole, "ffmpeg"),
    }
    for name, (data, decoder) in cases.items():
        path = tmp_path / f"{name}.mp3"
        path.write_bytes(data)
        assert decoder_of(path) == decoder, name
    low = makers.write(tmp_path / "low.mp3", makers.music(5.0, 22_050), 22_050, "MP3", "MPEG_LAYER_III")
    assert decoder_of(low) == "ffmpeg", "of low rates libsndfile's decoder complains on the process's stderr"


@pytest.mark.parametrize("kind", [k for k in ("mp3", "vbr.mp3") if makers.can_write(k)])
def test_both_decoders_give_the_same_mp3(
    songs: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with audio.open_audio(songs[kind], RATE, SLICED) as reader:
        assert reader.info.decoder == "libsndfile"
        places = [(s, 1.3) for s in np.arange(0.0, SECONDS, 0.77)]
        ours, length_s = [reader.read(*place).samples for place in places], reader.duration_s

    def refused(fd: int) -> None:
        raise DecodingError("refused")

    monkeypatch.setattr(audio, "SoundfileDecoder", refused)
    with audio.open_audio(songs[kind], RATE, SLICED) as reader:
        assert reader.info.decoder == "ffmpeg"
        assert reader.duration_s == length_s
        for place, samples in zip(places, ours, strict=True):
            np.testing.assert_allclose(samples, reader.read(*place).samples, atol=3e-6, err_msg=str(place))
    assert capfd.readouterr() == ("", "")


def test_tags_after_an_mp3_are_passed_over_silently(
    songs: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tagged.mp3"
    path.write_bytes(songs["mp3"].read_bytes() + b"APETAGEX" + bytes(range(256)) * 3 + b"TAG" + b"\xff\xfb" * 62)
    with audio.open_audio(path, RATE, SLICED) as reader:
        assert reader.info.decoder == "libsndfile"
        assert reader.duration_s == pytest.approx(SECONDS, abs=1e-3)
        assert len(reader.read(SECONDS - 2.0, 5.0).samples) == pytest.approx(2 * RATE, abs=2)
    assert len(audio.load(path, RATE).samples) == pytest.approx(SECONDS * RATE, abs=2)
    assert capfd.readouterr() == ("", "")


# --- seeking instead of decoding ---


@pytest.mark.parametrize("kind", [k for k in ("flac", "mp3", "m4a", "ogg", "webm") if makers.can_write(k)])
def test_a_long_song_is_not_decoded_whole(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = makers.write_as(kind, tmp_path / "long", makers.music(40, 48_000, 1), 48_000)
    decoded = 0
    for name in ("SoundfileDecoder", "FfmpegDecoder"):
        decoder = getattr(audio, name)
        original = decoder.blocks

        def counting(self, start, n, original=original):  # type: ignore[no-untyped-def]
            nonlocal decoded
            for block in original(self, start, n):
                decoded += len(block)
                yield block

        monkeypatch.setattr(decoder, "blocks", counting)
    with audio.open_audio(path, RATE, SLICED) as reader:
        for start_s in (10.0, 20.0, 35.0):
            reader.read(start_s, 2.0)
    assert 6 * 48_000 < decoded < 9 * 48_000


def test_wav_without_a_length_is_read(tmp_path: Path) -> None:
    path = makers.write(tmp_path / "piped.wav", makers.music(3.0), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    for size in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"):
        data[at : at + 4] = size
        path.write_bytes(data)
        with audio.open_audio(path, RATE) as reader:
            assert reader.duration_s == pytest.approx(3.0, abs=0.01)
            assert codes(reader) == []


@pytest.mark.skipif(not makers.has_encoder("libopus"), reason="no Opus encoder")
def test_webm_without_length_and_index_is_read(tmp_path: Path) -> None:
    samples = makers.music(12.0, 48_000)
    path = makers.write_av(tmp_path / "live", samples, 48_000, "webm", "libopus", container_options={"live": "1"})
    whole = audio.load(path, RATE).samples
    with audio.open_audio(path, RATE, SLICED) as reader:
        assert reader.info.duration_s is None
        assert reader.duration_s == pytest.approx(12.0, abs=0.03)
        np.testing.assert_allclose(reader.read(7.0, 2.0).samples, whole[7 * RATE : 9 * RATE], atol=2e-5)


def test_a_failing_decoder_is_replaced_in_the_middle(songs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = audio.load(songs["flac"], RATE).samples
    original = audio.SoundfileDecoder.blocks

    def failing(self, start, n):  # type: ignore[no-untyped-def]
        for done, block in enumerate(original(self, start, n)):
            yield block[:10_000]
            if done == 0:
                raise DecodingError("made to fail")

    monkeypatch.setattr(audio.SoundfileDecoder, "blocks", failing)
    for bounds in (Settings(), SLICED):
        with audio.open_audio(songs["flac"], RATE, bounds) as reader:
            np.testing.assert_allclose(reader.read(3.0, 8.0).samples, whole[3 * RATE : 11 * RATE], atol=2e-5)
            assert codes(reader) == []


# --- downmix ---


@pytest.mark.parametrize("bounds", [Settings(), SLICED], ids=["whole", "sliced"])
def test_opposite_phase_survives(tmp_path: Path, bounds: Settings) -> None:
    left = makers.music(8.0, n_channels=1)[:, 0]
    path = makers.write(tmp_path / "opposite.wav", np.stack([left, -left], axis=1), subtype="FLOAT")
    with audio.open_audio(path, None, bounds) as reader:
        got = np.concatenate([reader.read(start, 2.0).samples for start in (0.0, 2.0, 4.0, 6.0)])
        assert codes(reader) == []
    np.testing.assert_allclose(np.abs(got), np.abs(left), atol=1e-6)
    assert abs(np.dot(got, left)) == pytest.approx(np.dot(left, left), rel=1e-5)  # one sign throughout: no flips


def test_other_channels_are_averaged(tmp_path: Path) -> None:
    for n_channels in (1, 2, 6):
        samples = np.stack([makers.noise(2.0, seed=s) for s in range(n_channels)], axis=1)
        path = makers.write(tmp_path / "mean.wav", samples, subtype="FLOAT")
        np.testing.assert_allclose(audio.load(path, None).samples, samples.mean(axis=1), atol=1e-6)


def test_silence_before_the_music_does_not_fix_the_downmix(tmp_path: Path) -> None:
    left = np.concatenate([np.zeros(19 * makers.RATE, np.float32), makers.noise(1.0)])
    path = makers.write(tmp_path / "late.wav", np.stack([left, -left], axis=1), subtype="FLOAT")
    assert np.abs(audio.load(path, None).samples).max() == pytest.approx(np.abs(left).max(), rel=1e-6)


# --- warnings ---


@pytest.mark.parametrize("bounds", [Settings(), SLICED], ids=["whole", "sliced"])
@pytest.mark.parametrize("kind", ["wav", "w64", "flac", "mp3", "aiff", "au", "caf", "alac.m4a", "wma", "webm"])
def test_a_cut_file_says_how_much_is_there(tmp_path: Path, kind: str, bounds: Settings) -> None:
    if not makers.can_write(kind):
        pytest.skip("no encoder")
    if kind == "alac.m4a":  # the index first, else nothing of a cut file can be read
        path = makers.write_av(
            tmp_path / "cut", makers.music(12.0), container="ipod", codec="alac",
            container_options={"movflags": "faststart"},
        )  # fmt: skip
    else:
        path = makers.write_as(kind, tmp_path / "cut", makers.music(12.0))
    with audio.open_audio(path, RATE, bounds) as reader:
        assert codes(reader) == []
        whole_s = reader.duration_s
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with audio.open_audio(path, RATE, bounds) as reader:
        reader.read(0.5 * reader.duration_s, 1.0)
        assert codes(reader) == ["TRUNCATED"]
        share = round(100 * reader.duration_s / whole_s)
        assert 40 <= share <= 75
        text = reader.warnings()[0].message
        assert any(f"({n} %)" in text for n in (share - 1, share, share + 1)), text
        assert len(reader.read(reader.duration_s - 1.0, 1.0).samples) >= RATE - 1


def test_a_w64_that_a_pipe_was_written_to_is_whole(tmp_path: Path) -> None:
    path = makers.write_as("w64", tmp_path / "piped", makers.music(6.0))
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 16
    data[at : at + 8] = (0x7FFFFFFFFFFFFFFF).to_bytes(8, "little")
    path.write_bytes(data)
    with audio.open_audio(path, RATE) as reader:
        assert reader.duration_s == pytest.approx(6.0, abs=0.01)
        assert codes(reader) == []


def test_a_header_that_claims_more_than_the_bound_does_not_hide_what_is_there(tmp_path: Path) -> None:
    path = makers.write_as("wav", tmp_path / "lying", makers.music(6.0))
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = (0x7FF00000).to_bytes(4, "little")  # hours
    path.write_bytes(data)
    with audio.open_audio(path, RATE, Settings(max_duration_s=60.0)) as reader:
        assert reader.duration_s == pytest.approx(6.0, abs=0.01)
        assert codes(reader) == ["TRUNCATED"]


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_a_cut_ogg_says_so_though_it_claims_no_length(tmp_path: Path, kind: str) -> None:
    path = makers.write_as(kind, tmp_path / "cut", makers.music(8.0))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with audio.open_audio(path, RATE) as reader:
        assert codes(reader) == ["TRUNCATED"]


@pytest.mark.parametrize("offset", [0.0, 0.4, -0.05])
@pytest.mark.parametrize("bounds", [Settings(), SLICED], ids=["whole", "sliced"])
def test_a_constant_is_silence(tmp_path: Path, offset: float, bounds: Settings) -> None:
    samples = np.full((6 * makers.RATE, 2), offset, np.float32)
    path = makers.write(tmp_path / "constant.wav", samples, subtype="PCM_16")
    with audio.open_audio(path, None, bounds) as reader:
        reader.read(1.0, 2.0)
        assert codes(reader) == ["SILENT"]


def test_quiet_music_is_not_silent(tmp_path: Path) -> None:
    path = makers.write(tmp_path / "quiet.wav", makers.music(5.0) * 0.05, subtype="PCM_16")
    with audio.open_audio(path, RATE) as reader:
        assert codes(reader) == []


def test_clipping_is_told_and_a_full_scale_sine_is_not_clipped(tmp_path: Path) -> None:
    clipped = makers.write(tmp_path / "clipped.wav", np.clip(3 * makers.music(4.0), -1, 1), subtype="PCM_16")
    with audio.open_audio(clipped, RATE) as reader:
        assert codes(reader) == ["CLIPPED"]
    full = makers.write(tmp_path / "full.wav", makers.sine(4.0, amplitude=1.0), subtype="PCM_16")
    with audio.open_audio(full, RATE) as reader:
        assert codes(reader) == []


# --- files and folders ---

NAMES = [b"two\nlines.mp3", "songs \U0001f3b8 été.mp3".encode(), b"latin-\xe9t\xe9.mp3", b"-rf *.mp3", b"%s%n.mp3"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_any_name_works(songs: dict[str, Path], tmp_path: Path, name: bytes, kind: str) -> None:
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    try:
        Path(path).write_bytes(songs[kind].read_bytes())
    except OSError:
        pytest.skip("this file system refuses the name")
    assert audio.load(path, RATE).duration_s == pytest.approx(SECONDS, abs=0.01)
    assert audio.digest(path) == audio.digest(songs[kind])
    assert list(audio.find_audio(tmp_path)) == ([Path(path)] if name.endswith(b".mp3") else [])


def test_copies_look_alike_and_others_do_not(tmp_path: Path) -> None:
    """By size, beginning, middle and end; what lies between is not read."""
    path, twin = tmp_path / "a.wav", tmp_path / "b.mp3"
    content = bytearray(np.random.default_rng(0).bytes(1_000_000))
    path.write_bytes(content)
    twin.write_bytes(content)
    assert audio.sketch(path) == audio.sketch(twin)
    for at in (0, 500_000, 999_999):
        other = content.copy()
        other[at] ^= 1
        twin.write_bytes(other)
        assert audio.sketch(twin) != audio.sketch(path)
    twin.write_bytes(content + b"x")
    assert audio.sketch(twin) != audio.sketch(path)
    for short in (b"x", b"x" * 70_000):
        twin.write_bytes(short)
        assert audio.sketch(twin) != audio.sketch(path)


def test_digest_and_identity_follow_the_content(tmp_path: Path) -> None:
    path = makers.write(tmp_path / "a.wav", makers.noise(1.5))
    twin = tmp_path / "b.wav"
    twin.write_bytes(path.read_bytes())
    assert audio.digest(path) == audio.digest(twin)
    assert audio.file_identity(path) != audio.file_identity(twin)
    before = audio.file_identity(path), audio.digest(path)
    path.write_bytes(path.read_bytes() + b"\0")
    assert audio.file_identity(path) != before[0]
    assert audio.digest(path) != before[1]


def test_find_audio_is_sorted_and_survives_cycles(tmp_path: Path) -> None:
    for name in ("b/2.mp3", "b/1.FLAC", "a.wav", "c.txt", ".hidden.mp3", "b/d/x.opus"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "d" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.mp3").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mp3")
    found = [path.relative_to(tmp_path).as_posix() for path in audio.find_audio(tmp_path)]
    assert found == ["a.wav", "b/1.FLAC", "b/2.mp3", "b/d/x.opus"]
    with pytest.raises(StorageError):
        list(audio.find_audio(tmp_path / "nowhere"))


def test_nothing_stays_open(songs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_text("no music")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for path in [*songs.values(), tmp_path / "text.mp3"]:
        try:
            with audio.open_audio(path, RATE) as reader:
                reader.read(0.0, 1.0)
        except AudioError:
            pass
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_arguments_are_checked(songs: dict[str, Path]) -> None:
    for rate in (0, -1, 10**9):
        with pytest.raises(SettingsError):
            audio.open_audio(songs["wav"], rate)
    with audio.open_audio(songs["wav"], RATE) as reader:
        for start_s, length_s in ((-1.0, 1.0), (0.0, float("nan")), (float("inf"), 1.0)):
            with pytest.raises(SettingsError):
                reader.read(start_s, length_s)


def test_a_file_that_shrinks_while_it_is_read_is_a_storage_error(tmp_path: Path) -> None:
    path = makers.write(tmp_path / "shrinks.flac", makers.music(10.0), format="FLAC")
    with audio.open_audio(path, RATE, SLICED) as reader:
        os.truncate(path, 20_000)
        with pytest.raises(StorageError, match="changed"):
            reader.read(6.0, 2.0)
