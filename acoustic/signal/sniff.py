"""What a file is, by its bytes alone: its container, who can read it, and what its header claims.

Nothing is guessed. A container must show its signature (raw MPEG, AAC and transport streams several frames in a row);
whatever shows none is not audio, so neither decoder is ever asked to probe. Names and extensions are not looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import CorruptAudioError, EmptyAudioError, NotAudioError, UnsupportedAudioError
from .mpeg import Frames, counts_of, find_frames, is_mpeg_1

Pread = Callable[[int, int], bytes]
"""(offset, n) -> up to n bytes of the file"""

HEAD = 4_096
WINDOW = 1 << 16  # bytes searched for the first MPEG frame, as far as FFmpeg searches
MAX_CHUNKS = 256
MAX_TRAILING_SHARE = 1 / 128  # bytes of tags after an MP3's last frame, as a share of the stream: mpg123 warns at 1 %
PLAIN_CODES = (1, 3, 6, 7, 0xFFFE)  # of WAV and W64: samples of one size, PCM and its like
ENDLESS = 1 << 62  # streamed W64: no file is as long
UNKNOWN_SIZE = 0x7FFF0000  # streamed WAV: writers that could not go back leave 0x7FFFxxxx or 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What the bytes say.

    `demuxer` is FFmpeg's name of the format, the only one that it may use. `length` tells what a decoder's number of
    frames is worth: "claimed" by the header, "measured" from the file's end, or "unknown" (a guess from the bit rate).
    `claimed_s`, `sample_rate` and `n_channels` are set where they were read here; `ended` is False where an Ogg
    stream lacks its end mark.
    """

    container: str
    demuxer: str
    decoders: tuple[Literal["libsndfile", "ffmpeg"], ...] = ("ffmpeg",)
    length: Literal["claimed", "measured", "unknown"] = "claimed"
    claimed_s: float | None = None
    sample_rate: int | None = None
    n_channels: int | None = None
    ended: bool = True


# libsndfile first where both are exact and it is the faster. Ogg goes to FFmpeg first: libsndfile 1.2.2 calls one valid
# Opus file in twelve malformed. MP3: see `_is_plain_mp3`.
BOTH: tuple[Literal["libsndfile", "ffmpeg"], ...] = ("libsndfile", "ffmpeg")

_SIGNATURES: tuple[tuple[int, bytes, Sniffed], ...] = (
    (0, b"fLaC", Sniffed("FLAC", "flac", BOTH)),
    (0, b"riff\x2e\x91\xcf\x11", Sniffed("W64", "w64", BOTH, "measured")),
    (0, b"caff\x00\x01", Sniffed("CAF", "caf", BOTH)),
    (0, b"\x1a\x45\xdf\xa3", Sniffed("Matroska/WebM", "matroska")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Sniffed("ASF/WMA", "asf")),
    (0, b"FLV\x01", Sniffed("FLV", "flv")),
    (0, b"wvpk", Sniffed("WavPack", "wv")),
    (0, b"TTA1", Sniffed("TTA", "tta")),
    (0, b"tBaK", Sniffed("TAK", "tak")),
    (0, b"MAC ", Sniffed("Monkey's Audio", "ape")),
    (0, b"MPCK", Sniffed("Musepack", "mpc8")),
    (0, b"MP+", Sniffed("Musepack", "mpc")),
    (0, b"DSD ", Sniffed("DSF", "dsf")),
    (0, b".RMF", Sniffed("RealMedia", "rm")),
    (0, b".ra\xfd", Sniffed("RealAudio", "rm")),
    (0, b"qoaf", Sniffed("QOA", "qoa")),
    (0, b"Creative Voice File\x1a", Sniffed("VOC", "voc", length="unknown")),
    (0, b"#!AMR", Sniffed("AMR", "amr", length="unknown")),
    (0, b"\x7f\xfe\x80\x01", Sniffed("DTS", "dts", length="unknown")),
    (0, b"\x00\x00\x01\xba", Sniffed("MPEG-PS", "mpeg", length="unknown")),
    *((4, box, Sniffed("MP4/M4A", "mov")) for box in (b"ftyp", b"moov", b"mdat", b"wide")),
)

_NOT_AUDIO: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\x00", "a TIFF picture"),
    (0, b"MM\x00*", "a TIFF picture"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    (0, b"SQLite format 3\x00", "a database"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"\xff\xfe", "a text"),
    (0, b"\xfe\xff", "a text"),
)

_UNSUPPORTED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"MThd", "MIDI (notes, no sound)"),
    (0, b"OFR ", "OptimFROG"),
    (0, b"FRM8", "DSDIFF"),
    (0, b"IMPM", "an Impulse Tracker module"),
    (0, b"Extended Module: ", "a FastTracker module"),
    (44, b"SCRM", "a Scream Tracker module"),
    (1080, b"M.K.", "a ProTracker module"),
)
_TEXT_BYTES = bytes(range(32, 127)) + b"\t\n\r\f\x1b" + bytes(range(128, 256))


def sniff(pread: Pread, size: int) -> Sniffed:
    """What the file of `size` bytes is. Raises NotAudio-, Unsupported-, Corrupt- or EmptyAudioError."""
    head = pread(0, HEAD)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _riff(head, pread, size)
    if head[:4] == b"FORM":
        return _form(head, pread, size)
    if head[:4] in (b".snd", b"dns."):
        return _au(head, size)
    if head[:4] == b"OggS":
        return _ogg(pread, size)
    if head[:3] == b"ID3":
        return _tagged(pread, size)
    for offset, magic, found in _SIGNATURES:
        if head.startswith(magic, offset):
            special = {"FLAC": _flac, "ASF/WMA": _asf, "W64": _w64, "CAF": _caf}.get(found.container)
            return special(head, found, size) if special else found
    for offset, magic, what in _UNSUPPORTED:
        if head.startswith(magic, offset):
            raise UnsupportedAudioError(f"this is {what}, which no decoder here turns into sound")
    for offset, magic, what in _NOT_AUDIO:
        if head.startswith(magic, offset) and not (what == "a program" and len(head) < 64):
            raise NotAudioError(f"this is {what}, not audio")
    return _stream(head, pread(0, WINDOW + HEAD), size)


def _stream(head: bytes, window: bytes, size: int) -> Sniffed:
    """Streams without a file header: MPEG audio, AAC, AC-3, transport streams. Anything else is not audio."""
    if _is_text(head):
        raise NotAudioError(f"this is text, not audio: it begins {head[:24].decode('utf-8', 'replace')!r}")
    for packet, lead in ((188, 0), (192, 4)):  # 192: a time code before each packet, as cameras write
        if len(window) > 5 * packet and all(window[lead + i * packet] == 0x47 for i in range(5)):
            return Sniffed("MPEG-TS", "mpegts", length="unknown")
    if head[:2] == b"\x0b\x77" and len(head) > 5:
        return Sniffed("AC-3", "eac3" if head[5] >> 3 > 10 else "ac3", length="unknown")
    found = _mpeg(window, size, tagged=False)
    if found is None:
        raise NotAudioError("the bytes show no signature of any audio format")
    return found


def _mpeg(window: bytes, size: int, tagged: bool) -> Sniffed | None:
    """MP3 (MP1, MP2) or ADTS AAC, if frames follow one another in `window`, the start of a stream of `size` bytes."""
    frames = find_frames(window, size > len(window), WINDOW, tagged)
    if frames is None:
        return None
    if frames.kind == "adts":
        return Sniffed("AAC", "aac", length="unknown")
    if frames.layer != 3:
        return Sniffed(f"MP{frames.layer}", "mp3", length="unknown")
    counts = counts_of(window, frames.offset)
    if counts is None or not counts.n_frames:
        return Sniffed("MP3", "mp3", length="unknown")
    plain = is_mpeg_1(window, frames.offset) and _is_plain_mp3(frames, counts.n_bytes, size)
    return Sniffed("MP3", "mp3", BOTH if plain else ("ffmpeg",))


def _is_plain_mp3(frames: Frames, n_bytes: int, size: int) -> bool:
    """Whether libsndfile may read an MP3 stream of MPEG-1: it begins at once, and is as long as its first frame says.

    There libsndfile's mpg123 gives FFmpeg's samples, in half the time and beside other Python. Elsewhere it counts
    frames by guessing, and tells the process's stderr of every byte that it does not like; so it does of low rates.
    """
    return frames.offset == 0 and 0 <= size - n_bytes <= MAX_TRAILING_SHARE * n_bytes


def _tagged(pread: Pread, size: int) -> Sniffed:
    """After ID3v2 tags, which may hold a picture of megabytes: the stream itself."""
    offset = 0
    while len(head := pread(offset, 10)) == 10 and head[:3] == b"ID3":
        length = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127
        offset += 10 + length + (10 if head[5] & 0x10 else 0)
    if offset >= size:
        raise EmptyAudioError(f"an ID3 tag of {offset:,} bytes, and after it no audio (the file has {size:,} bytes)")
    window = pread(offset, WINDOW + HEAD)
    padding = len(window) - len(window.lstrip(b"\0"))
    for magic, found in ((b"fLaC", Sniffed("FLAC", "flac")), (b"TTA1", Sniffed("TTA", "tta"))):
        if window.startswith(magic, padding):
            return found
    found_stream = _mpeg(window[padding:], size - offset - padding, tagged=True)
    if found_stream is None:
        raise CorruptAudioError(f"an ID3 tag, but no audio frames within {len(window):,} bytes after it")
    return found_stream


def _chunks(pread: Pread, offset: int, size: int, order: str) -> list[tuple[bytes, int, int]]:
    """(name, offset of the body, length of the body as written) of the chunks of a RIFF or IFF file."""
    found: list[tuple[bytes, int, int]] = []
    while offset + 8 <= size and len(found) < MAX_CHUNKS:
        name, length = struct.unpack(order + "4sI", pread(offset, 8).ljust(8, b"\0"))
        found.append((name, offset + 8, length))
        offset += 8 + length + length % 2
    return found


def _riff(head: bytes, pread: Pread, size: int) -> Sniffed:
    if len(head) < 12:
        raise CorruptAudioError(f"a RIFF header cut after {len(head)} bytes")
    form = head[8:12]
    if form == b"AVI ":
        return Sniffed("AVI", "avi")
    if form == b"RMID":
        raise UnsupportedAudioError("this is MIDI (notes, no sound), which no decoder here turns into sound")
    if form != b"WAVE":
        what = "a WebP picture" if form == b"WEBP" else f"a RIFF file of kind {form.decode('ascii', 'replace')!r}"
        raise NotAudioError(f"this is {what}, not audio")
    order = ">" if head[:4] == b"RIFX" else "<"
    long_size: int | None = None
    fmt: tuple[int, int, int, int, int] | None = None
    for name, offset, length in _chunks(pread, 12, size, order):
        body = pread(offset, 24)
        if name == b"ds64" and len(body) >= 16:
            long_size = struct.unpack("<Q", body[8:16])[0]
        elif name == b"fmt " and len(body) >= 16 and fmt is None:
            fmt = struct.unpack(order + "HHIIH", body[:14])
        elif name == b"data" and fmt is not None:
            return _wav(head, fmt, offset, long_size if length == 0xFFFFFFFF and long_size else length, size)
    raise CorruptAudioError(f"a WAVE file without {'its data' if fmt else 'a format'} chunk within its {size:,} bytes")


def _wav(head: bytes, fmt: tuple[int, int, int, int, int], offset: int, length: int, size: int) -> Sniffed:
    code, n_channels, rate, byte_rate, block = fmt
    held = size - offset
    if held <= 0 or held < block:
        raise EmptyAudioError("the WAVE header is there, but no samples follow it")
    streamed = length == 0 or (length >= UNKNOWN_SIZE and head[:4] in (b"RIFF", b"RIFX"))
    plain = code in PLAIN_CODES
    per_second = rate * block if plain else byte_rate
    claimed = None if streamed else _claimed_s(length, held, per_second)
    # MP3 in WAV is left to FFmpeg for the same reason as MP3; ADPCM and the rest have been seen to work in both.
    decoders = BOTH if plain or code in (2, 0x11, 0x31) else ("ffmpeg",)
    container = head[:4].decode() if head[:4] in (b"RF64", b"BW64") else "WAV"
    return Sniffed(container, "wav", decoders, "measured", claimed, rate, n_channels)


def _form(head: bytes, pread: Pread, size: int) -> Sniffed:
    if len(head) < 12:
        raise CorruptAudioError(f"a FORM header cut after {len(head)} bytes")
    form = head[8:12]
    if form in (b"8SVX", b"16SV"):
        return Sniffed("IFF/SVX", "iff", length="unknown")
    if form not in (b"AIFF", b"AIFC"):
        raise NotAudioError(f"this is an IFF file of kind {form.decode('ascii', 'replace')!r}, not audio")
    claimed: float | None = None
    rate = n_channels = None
    for name, offset, length in _chunks(pread, 12, size, ">"):
        if name == b"COMM" and len(body := pread(offset, 18)) == 18:
            n_channels, n_frames, _bits = struct.unpack(">HIH", body[:8])
            rate = _extended(body[8:18])
            claimed = n_frames / rate if rate > 0 else None
            if n_frames == 0:
                raise EmptyAudioError("the AIFF header claims 0 samples")
        elif name == b"SSND" and rate is not None:
            if offset + 8 >= size:
                raise EmptyAudioError("the AIFF header is there, but no samples follow it")
            cut = offset + length > size
            return Sniffed("AIFF", "aiff", BOTH, "measured", claimed if cut else None, rate, n_channels)
    raise CorruptAudioError(f"an AIFF file without {'sound' if rate is not None else 'its COMM'} chunk")


def _extended(field: bytes) -> int:
    """80-bit extended float, as AIFF writes sample rates, cut to an integer of at most 2^31."""
    exponent, mantissa = struct.unpack(">HQ", field)
    shift = (exponent & 0x7FFF) - 16383 - 63
    if exponent & 0x8000 or shift < -63:
        return 0
    return min(mantissa >> -shift, 1 << 31) if shift <= 0 else 1 << 31


def _au(head: bytes, size: int) -> Sniffed:
    if len(head) < 24:
        raise CorruptAudioError(f"an AU header cut after {len(head)} bytes")
    order = ">" if head[:4] == b".snd" else "<"
    start, length, encoding, rate, n_channels = struct.unpack(order + "5I", head[4:24])
    width = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding, 0)
    held = size - start
    if length == 0 or held <= 0:
        raise EmptyAudioError("the AU header is there, but no samples follow it")
    claimed = None if length == 0xFFFFFFFF else _claimed_s(length, held, rate * n_channels * width)
    decoders = BOTH if order == ">" else ("libsndfile",)
    return Sniffed("AU", "au", decoders, "measured", claimed, rate, n_channels)


def _w64(head: bytes, found: Sniffed, size: int) -> Sniffed:
    """Sony Wave64: chunks named by 16 bytes, whose 8 bytes of length count their own head; each begins at a multiple
    of 8."""
    offset, per_second = 40, 0
    while offset + 24 <= len(head):
        name, length = head[offset : offset + 4], int.from_bytes(head[offset + 16 : offset + 24], "little")
        body = offset + 24
        if name == b"fmt " and body + 14 <= len(head):
            code, n_channels, rate, byte_rate, block = struct.unpack("<HHIIH", head[body : body + 14])
            per_second = rate * block if code in PLAIN_CODES else byte_rate
            found = replace(found, sample_rate=rate, n_channels=n_channels)
        elif name == b"data":
            told = length < ENDLESS  # else a writer that could not go back
            return replace(found, claimed_s=_claimed_s(length - 24, size - body, per_second) if told else None)
        offset += max(24, (length + 7) // 8 * 8)
    return found


def _caf(head: bytes, found: Sniffed, size: int) -> Sniffed:
    """Apple's Core Audio Format. Only packets of one size tell how long the audio data is; -1 is "to the end"."""
    offset, per_second = 8, 0.0
    while offset + 12 <= len(head):
        name, length = struct.unpack(">4sq", head[offset : offset + 12])
        body = offset + 12
        if name == b"desc" and body + 32 <= len(head):
            rate, n_bytes, n_frames, n_channels = struct.unpack(">d8x3I", head[body : body + 28])
            if not 0 < rate < 1 << 31:
                return found
            per_second = rate * n_bytes / n_frames if n_frames else 0.0
            found = replace(found, sample_rate=int(rate), n_channels=n_channels)
        elif name == b"data":
            return replace(found, claimed_s=_claimed_s(length - 4, size - body - 4, per_second))
        offset = body + max(0, length)
    return found


def _claimed_s(n_bytes: int, n_held: int, per_second: float) -> float | None:
    """What the header claims, where that is more than the file holds."""
    return n_bytes / per_second if n_bytes > n_held and per_second > 0 else None


def _flac(head: bytes, found: Sniffed, _size: int) -> Sniffed:
    if len(head) < 42 or head[4] & 127 != 0:
        raise CorruptAudioError("a FLAC file without its stream information")
    packed = int.from_bytes(head[18:26], "big")
    rate, n_channels, n_frames = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    if n_frames == 0:  # written to a pipe: FFmpeg finds the end
        return Sniffed("FLAC", "flac", ("ffmpeg",), "unknown", None, rate, n_channels)
    return Sniffed("FLAC", "flac", found.decoders, "claimed", None, rate, n_channels)


def _asf(head: bytes, found: Sniffed, _size: int) -> Sniffed:
    """The File Properties object holds the length: play duration in 100 ns less the preroll in ms. Of a cut file FFmpeg
    tells a shorter one.
    """
    at = head.find(b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65")
    if at < 0 or len(head) < at + 88:
        return found
    play, _, preroll = struct.unpack("<3Q", head[at + 64 : at + 88])
    return replace(found, claimed_s=max(0.0, play / 1e7 - preroll / 1e3) or None)


def _ogg(pread: Pread, size: int) -> Sniffed:
    """Ogg claims no length, but a stream that was not cut ends in a whole page with the end mark."""
    tail = pread(max(0, size - (WINDOW + HEAD)), WINDOW + HEAD)
    at = tail.rfind(b"OggS")
    ended = False
    if at >= 0 and len(tail) >= at + 27:
        n_segments = tail[at + 26]
        end = at + 27 + n_segments + sum(tail[at + 27 : at + 27 + n_segments])
        ended = bool(tail[at + 5] & 4) and end <= len(tail)
    return Sniffed("Ogg", "ogg", ("ffmpeg", "libsndfile"), "measured", ended=ended)


def _is_text(head: bytes) -> bool:
    """UTF-8, or mostly ASCII in some other encoding, and no control characters but those that texts hold."""
    if head.translate(None, _TEXT_BYTES):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = len(head) == HEAD and error.start > HEAD - 4  # in the middle of a character
        return cut or len(head.translate(None, bytes(range(128, 256)))) >= 0.7 * len(head)
    return True
