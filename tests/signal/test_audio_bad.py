"""Files that are not what they should be: each its typed error, at once, quietly, and nothing but AudioError."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import struct
import subprocess
import sys
import tarfile
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from acoustic.errors import AudioError
from acoustic.settings import Settings
from acoustic.signal import audio
from tests import makers

RATE = 22_050
BOUNDS = Settings(whole_file_s=2.0)
Write = Callable[[Path], object]


def wav(
    n: int = 88_200, rate: int = 44_100, channels: int = 1, code: int = 1, bits: int = 16, claim: int | None = None
) -> bytes:
    """A WAV file of `n` bytes of noise whose header says what it is told to say."""
    body = np.random.default_rng(1).integers(0, 255, n, np.uint8).tobytes()
    block = channels * bits // 8 & 0xFFFF
    fmt = struct.pack("<HHIIHH", code, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    data = b"data" + struct.pack("<I", n if claim is None else claim) + body
    return b"RIFF" + struct.pack("<I", 28 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + fmt + data


def floats(value: float, seconds: float = 3.0, subtype: str = "FLOAT") -> Write:
    samples = makers.noise(seconds)
    samples[40_000:40_010] = value
    return lambda path: makers.write(path, samples, subtype=subtype)


def cut(kind: str, n_bytes: int) -> Write:
    def write(path: Path) -> None:
        data = makers.write_as(kind, path, makers.music(4.0)).read_bytes()
        path.write_bytes(data[:n_bytes])

    return write


def tagged(after: bytes) -> bytes:
    """An ID3v2 tag with an embedded JPEG of a megabyte, then `after`."""
    picture = b"\xff\xd8\xff\xe0" + b"\xff\xfb\x90\x00JPEG" * 130_000
    body = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    n = len(body)
    return b"ID3\x03\0\0" + bytes([n >> 21 & 127, n >> 14 & 127, n >> 7 & 127, n & 127]) + body + after


def zipped(path: Path) -> None:
    song = makers.write_as("mp3", path, makers.music(2.0)).read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("song.mp3", song)


def tarred(path: Path) -> None:
    song = makers.write_as("mp3", path.with_suffix(".x"), makers.music(2.0))
    with tarfile.open(path, "w") as archive:
        archive.add(song, "song.mp3")


def raw(data: bytes) -> Write:
    return lambda path: path.write_bytes(data)


def sparse(path: Path) -> None:
    path.write_bytes(wav()[:44])
    os.truncate(path, 3 << 30)


def video_only(path: Path) -> None:
    import av

    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(12):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))


def foreign_codec(path: Path) -> None:
    """An M4A whose sample description names the codec of protected files."""
    data = makers.write_as("alac.m4a", path, makers.music(2.0)).read_bytes()
    path.write_bytes(data.replace(b"alac", b"drmz"))


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
HTML = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>"
HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile /etc/passwd\n"
SUBTITLES = b"1\n00:00:01,000 --> 00:00:04,000\nWhat a song\n\n" * 30
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
LONG_FLAC = b"fLaC\x80\x00\x00\x22" + struct.pack(">HH", 4096, 4096) + b"\0" * 6
LONG_FLAC += (44_100 << 44 | 1 << 41 | 15 << 36 | (1 << 36) - 1).to_bytes(8, "big") + b"\0" * 16 + b"\xff\xf8" * 999
RANDOM = np.random.default_rng(3).integers(0, 255, 200_000, np.uint8).tobytes()

BAD: dict[str, tuple[str, Write]] = {
    "empty": ("EMPTY", raw(b"")),
    "wav without samples": ("EMPTY", raw(wav(0))),
    "wav header of a longer file": ("EMPTY", raw(wav(claim=88_200)[:44])),
    "aiff without samples": ("EMPTY", lambda path: makers.write(path, np.zeros(0, np.float32), format="AIFF")),
    "au without samples": ("EMPTY", raw(b".snd" + struct.pack(">5I", 24, 0, 3, 44_100, 1))),
    "id3 tag alone": ("EMPTY", raw(tagged(b""))),
    "text": ("NOT_AUDIO", raw(b"This is the list of songs that I like.\n" * 50)),
    "short text": ("NOT_AUDIO", raw(b"hi")),
    "one byte": ("NOT_AUDIO", raw(b"\xff")),
    "latin-1 text": ("NOT_AUDIO", raw("Liedtexte über Mädchen, schön".encode("latin-1") * 40)),
    "utf-16 text": ("NOT_AUDIO", raw("songs to hear".encode("utf-16") * 40)),
    "html": ("NOT_AUDIO", raw(HTML)),
    "json": ("NOT_AUDIO", raw(b'{"error": "not found"}')),
    "lfs pointer": ("NOT_AUDIO", raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")),
    "hls playlist": ("NOT_AUDIO", raw(HLS)),
    "concat script": ("NOT_AUDIO", raw(CONCAT)),
    "subtitles": ("NOT_AUDIO", raw(SUBTITLES)),
    "session description": ("NOT_AUDIO", raw(SDP)),
    "png": ("NOT_AUDIO", raw(PNG)),
    "jpeg": ("NOT_AUDIO", raw(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)) * 40)),
    "gif": ("NOT_AUDIO", raw(b"GIF89a" + bytes(500))),
    "webp": ("NOT_AUDIO", raw(b"RIFF\x00\x10\x00\x00WEBPVP8 " + bytes(4096))),
    "pdf": ("NOT_AUDIO", raw(b"%PDF-1.7\n" + bytes(range(256)) * 20)),
    "zip with a song": ("NOT_AUDIO", zipped),
    "tar with a song": ("NOT_AUDIO", tarred),
    "gzip": ("NOT_AUDIO", raw(b"\x1f\x8b\x08\x00" + bytes(range(200)) * 9)),
    "elf": ("NOT_AUDIO", raw(b"\x7fELF\x02\x01\x01" + bytes(900))),
    "zeros": ("NOT_AUDIO", raw(bytes(100_000))),
    "random bytes": ("NOT_AUDIO", raw(RANDOM)),
    "raw pcm": ("NOT_AUDIO", raw((makers.sine(2.0) * 32_767).astype("<i2").tobytes())),
    "folder": ("NOT_AUDIO", lambda path: path.mkdir()),
    "fifo": ("NOT_AUDIO", lambda path: os.mkfifo(path)),
    "device": ("NOT_AUDIO", lambda path: path.symlink_to("/dev/zero")),
    "video without sound": ("NOT_AUDIO", video_only),
    "midi": ("UNSUPPORTED", raw(b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x01\xe0MTrk" + bytes(40))),
    "tracker module": ("UNSUPPORTED", raw(b"Extended Module: song" + bytes(400))),
    "codec without a decoder": ("UNSUPPORTED", foreign_codec),
    "riff of four bytes": ("CORRUPT", raw(b"RIFF")),
    "wav without chunks": ("CORRUPT", raw(b"RIFF\x24\x00\x00\x00WAVE")),
    "wav with an unknown codec": ("UNSUPPORTED", raw(wav(code=0x7777))),
    "flac of four bytes": ("CORRUPT", raw(b"fLaC")),
    "flac header and rubbish": ("CORRUPT", lambda path: path.write_bytes(flac_header(path) + RANDOM)),
    "flac cut in its header": ("CORRUPT", cut("flac", 60)),
    "ogg cut in its header": ("CORRUPT", cut("ogg", 40)),
    "ogg and rubbish": ("CORRUPT", raw(b"OggS\x00\x02" + RANDOM)),
    "opus cut in its header": ("CORRUPT", cut("opus", 60)),
    "m4a cut before its index": ("CORRUPT", cut("alac.m4a", 90_000)),
    "webm and rubbish": ("CORRUPT", raw(b"\x1a\x45\xdf\xa3" + RANDOM)),
    "wma and rubbish": ("CORRUPT", raw(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + RANDOM)),
    "id3 tag and rubbish": ("CORRUPT", raw(tagged(RANDOM))),
    "aiff without sound": ("CORRUPT", raw(b"FORM\x00\x00\x00\x04AIFF")),
    "samples of 1e30": ("CORRUPT", floats(1e30)),
    "half a second": ("TOO_SHORT", lambda path: makers.write(path, makers.noise(0.5))),
    "half a second of mp3": ("TOO_SHORT", lambda path: makers.write_as("mp3", path, makers.noise(0.5))),
    "one sample": ("TOO_SHORT", lambda path: makers.write(path, makers.noise(1.0)[:1])),
    "mp3 cut after 2,000 bytes": ("TOO_SHORT", cut("mp3", 2_000)),
    "wav cut after 10,000 bytes": ("TOO_SHORT", cut("wav", 10_000)),
    "flac that claims 18 days": ("TOO_LONG", raw(LONG_FLAC)),
    "wav of 12 hours": ("TOO_LONG", lambda path: (path.write_bytes(wav(0, 4_000, 1, 1, 8, 4_000 * 43_200)),
                                                 os.truncate(path, 44 + 4_000 * 43_200))),
    "3 GB": ("TOO_LARGE", sparse),
    "1 Hz": ("BAD_PARAMS", raw(wav(rate=1))),
    "0 Hz": ("BAD_PARAMS", raw(wav(rate=0))),
    "4 GHz": ("BAD_PARAMS", raw(wav(rate=0xFFFFFFFF))),
    "no channels": ("BAD_PARAMS", raw(wav(channels=0))),
    "65,535 channels": ("BAD_PARAMS", raw(wav(channels=65_535))),
    "33 channels": ("BAD_PARAMS", lambda path: makers.write(path, np.zeros((44_100, 33), np.float32))),
    "au of 1 Hz": ("BAD_PARAMS", raw(b".snd" + struct.pack(">5I", 24, 9_000, 3, 1, 1) + RANDOM[:9_000])),
    "nan": ("NONFINITE", floats(float("nan"))),
    "infinity": ("NONFINITE", floats(float("inf"))),
    "double beyond float": ("NONFINITE", floats(float("-inf"), subtype="DOUBLE")),
    "nan in a short file": ("NONFINITE", floats(float("nan"), 1.5)),
    "missing": ("STORAGE", lambda path: None),
    "dangling link": ("STORAGE", lambda path: path.symlink_to("nowhere")),
    "link to itself": ("STORAGE", lambda path: path.symlink_to(path.name)),
}  # fmt: skip


def flac_header(path: Path) -> bytes:
    return makers.write_as("flac", path, makers.music(4.0)).read_bytes()[:42]


def consume(path: str | Path, bounds: Settings = BOUNDS) -> None:
    """Open and read all that is offered, by slices."""
    with audio.open_audio(path, RATE, bounds) as reader:
        start_s = 0.0
        while start_s < min(reader.duration_s, 30.0):
            assert np.isfinite(reader.read(start_s, 2.0).samples).all()
            start_s += 2.0
        reader.warnings()


@pytest.mark.parametrize("name", BAD)
def test_each_bad_file_has_its_error(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, write = BAD[name]
    path = tmp_path / "song.mp3"
    write(path)
    with pytest.raises(AudioError) as caught:
        consume(path)
    error = caught.value.to_dict()
    assert error["code"] == code, error
    assert error["message"]
    assert error["hint"]
    assert "\n" not in error["message"]
    assert capfd.readouterr() == ("", "")


def test_unreadable_files_are_storage_errors(tmp_path: Path) -> None:
    path = makers.write(tmp_path / "secret.wav", makers.noise(2.0))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(AudioError) as caught:
        consume(path)
    assert caught.value.code == "STORAGE"


@pytest.mark.parametrize("name", ["nul\0byte.mp3", "x" * 5_000, ""])
def test_impossible_names_are_storage_errors(name: str) -> None:
    for door in (consume, audio.digest, audio.file_identity):
        with pytest.raises(AudioError) as caught:
            door(name)
        assert caught.value.code == "STORAGE"


def test_digest_and_identity_refuse_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp3")
    for path in (tmp_path, tmp_path / "pipe.mp3"):
        for door in (audio.digest, audio.file_identity):
            with pytest.raises(AudioError) as caught:
                door(path)
            assert caught.value.code == "NOT_AUDIO"


def test_bounds_come_from_the_settings(tmp_path: Path) -> None:
    path = makers.write(tmp_path / "a.wav", makers.music(3.0))
    for bounds, code in (
        (Settings(min_duration_s=4.0), "TOO_SHORT"),
        (Settings(max_duration_s=2.0), "TOO_LONG"),
        (Settings(max_file_mb=0.1), "TOO_LARGE"),
        (Settings(max_channels=1), "BAD_PARAMS"),
        (Settings(min_sample_rate_hz=48_000), "BAD_PARAMS"),
        (Settings(max_sample_rate_hz=32_000), "BAD_PARAMS"),
    ):
        with pytest.raises(AudioError) as caught:
            consume(path, bounds)
        assert caught.value.code == code


def test_nan_beyond_what_is_read_does_not_matter(tmp_path: Path) -> None:
    samples = makers.noise(20.0)
    samples[-makers.RATE // 2 :] = np.nan
    path = makers.write(tmp_path / "late.wav", samples, subtype="FLOAT")
    with audio.open_audio(path, RATE, BOUNDS) as reader:
        assert np.isfinite(reader.read(2.0, 5.0).samples).all()
        with pytest.raises(AudioError) as caught:
            reader.read(18.0, 2.0)
    assert caught.value.code == "NONFINITE"


def test_a_song_behind_a_large_picture_is_heard(tmp_path: Path) -> None:
    for kind in ("mp3", "flac", "aac"):
        if makers.can_write(kind):
            song = makers.write_as(kind, tmp_path / "song", makers.music(4.0))
            plain_s = audio.load(song, RATE).duration_s
            song.write_bytes(tagged(song.read_bytes()))
            assert audio.load(song, RATE).duration_s == pytest.approx(plain_s, abs=0.03)


def test_mp3_after_rubbish_is_heard_and_told_silently(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    song = makers.write_as("mp3", tmp_path / "song", makers.music(6.0))
    data = bytearray(song.read_bytes())
    for at in range(20_000, len(data) - 2_000, 9_000):
        data[at : at + 300] = RANDOM[:300]
    song.write_bytes(bytes(700) + data + RANDOM[:500])
    assert audio.load(song, RATE).duration_s == pytest.approx(6.0, abs=0.5)
    assert capfd.readouterr() == ("", "")


def test_a_1_hz_header_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "1hz.wav"
    path.write_bytes(wav(20_000_000, rate=1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AudioError):
        consume(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    song = makers.write(tmp_path / "song.wav", makers.music(3.0))
    for text in (f"#EXTM3U\n{song}\n", f"ffconcat version 1.0\nfile '{song}'\n", str(song)):
        path = tmp_path / "list.mp3"
        path.write_text(text)
        with pytest.raises(AudioError) as caught:
            consume(path)
        assert caught.value.code == "NOT_AUDIO"


def test_pythons_own_wave_files_are_read(tmp_path: Path) -> None:
    for width in (1, 2, 3, 4):
        path = tmp_path / "w.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((2, width, 8_000, 0, "NONE", ""))
            file.writeframes(RANDOM[: 8_000 * 2 * width])
        assert audio.load(path, None).duration_s == pytest.approx(1.0)


# --- whatever the bytes ---


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    kinds = ("wav", "float.wav", "flac", "ogg", "opus", "mp3", "aiff", "au", "caf", "m4a", "wma", "webm", "aac", "ts")
    samples = makers.music(3.0)
    return {k: makers.write_as(k, folder / k, samples).read_bytes() for k in kinds if makers.can_write(k)}


def only_audio_errors(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for bounds in (Settings(), BOUNDS):
        with contextlib.suppress(AudioError):
            consume(path, bounds)


SIGNATURES = st.sampled_from([
    b"", b"RIFF\x24\0\0\0WAVE", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0", b"RF64\xff\xff\xff\xffWAVEds64",
    b"fLaC\0\0\0\x22", b"OggS\0\x02", b"ID3\x03\0\0\0\0\0\x0a", b"FORM\0\0\xff\xffAIFFCOMM\0\0\0\x12",
    b".snd\0\0\0\x18", b"\0\0\0\x18ftypM4A ", b"caff\0\x01", b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0AVI ", b"DSD ",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80", b"#!AMR\n", b"\x0b\x77",
    b"MAC \x96\x0f", b"wvpk", b"TTA1", b"FLV\x01",
])  # fmt: skip


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=SIGNATURES, tail=st.binary(max_size=600))
def test_random_bytes_give_nothing_but_audio_errors(tmp_path: Path, head: bytes, tail: bytes) -> None:
    only_audio_errors(tmp_path / "x", head + tail)


@hypothesis_settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_give_nothing_but_audio_errors(
    tmp_path: Path, originals: dict[str, bytes], data: st.DataObject
) -> None:
    original = bytearray(originals[data.draw(st.sampled_from(sorted(originals)))])
    for _ in range(data.draw(st.integers(1, 6))):
        head_heavy = st.integers(0, min(200, len(original) - 1)) | st.integers(0, len(original) - 1)
        at = data.draw(head_heavy)
        patch = data.draw(st.binary(min_size=1, max_size=8))
        original[at : at + len(patch)] = patch
    if data.draw(st.booleans()):
        del original[data.draw(st.integers(0, len(original))) :]
    only_audio_errors(tmp_path / "x", bytes(original))


def test_decoders_print_nothing_at_exit_either(tmp_path: Path) -> None:
    """In a process of its own: C libraries write past Python's streams."""
    song = makers.write_as("mp3", tmp_path / "song.mp3", makers.music(3.0))
    damaged = bytearray(song.read_bytes())
    damaged[4_000:4_400] = RANDOM[:400]
    song.write_bytes(damaged[: len(damaged) * 2 // 3])
    code = f"from acoustic.signal import audio; print(round(audio.load({str(song)!r}, 22050).duration_s))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(audio.__file__).parents[2], check=True
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_sniffing_reads_little(tmp_path: Path) -> None:
    """A file as large as the bound is refused or known by a few reads, not by reading it."""
    path = tmp_path / "large.mp3"
    path.write_bytes(bytes(64))
    os.truncate(path, 1 << 30)
    io_before = read_bytes()
    with pytest.raises(AudioError):
        consume(path)
    if io_before is not None:
        assert read_bytes() - io_before < 4 << 20


def read_bytes() -> int | None:
    """Bytes that this process has read so far, where the system counts them."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        return None
    return int(next(line for line in io.StringIO(text) if line.startswith("rchar")).split()[1])
