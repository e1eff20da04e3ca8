"""Every way in which AcousticSense says no.

One tree; each leaf has a stable `.code` (part of the JSON contract), a message that names the value and the limit,
and a `.hint` that says what to do next. Foreign errors are translated where the foreign library is called.

    AcousticError
    ├── AudioError                 one file cannot be analysed; the rest of the batch goes on
    │   ├── EmptyAudioError        EMPTY        no bytes, or no samples
    │   ├── NotAudioError          NOT_AUDIO    text, image, archive, folder, FIFO, device
    │   ├── UnsupportedAudioError  UNSUPPORTED  audio, but no decoder here reads it
    │   ├── CorruptAudioError      CORRUPT      recognised, but cannot be decoded
    │   ├── TooShortError          TOO_SHORT    less audio than the bound
    │   ├── TooLongError           TOO_LONG     more hours than the bound
    │   ├── TooLargeError          TOO_LARGE    more bytes than the bound
    │   ├── BadParamsError         BAD_PARAMS   sample rate or channel count out of bounds
    │   ├── NonFiniteError         NONFINITE    NaN or infinite samples
    │   ├── PoisonError            POISON       twice it killed the process that read it, or took too long
    │   └── StorageError           STORAGE      missing, unreadable, or lost while reading
    ├── ModelError                 MODEL        a model folder that cannot be trusted or loaded
    ├── BackendError               BACKEND      a device or backend that this machine lacks
    ├── StoppedError               STOPPED      the work was stopped before this file's turn
    ├── SettingsError              SETTINGS     a setting or argument out of range
    ├── LibraryError               LIBRARY      the library's file cannot be opened, read or written
    │   └── ConflictError          CONFLICT     somebody else decided first
    ├── TagError                   TAGS         a file's tags cannot be read or written
    ├── ManifestError              MANIFEST     a row of a training or evaluation manifest
    ├── DivergedError              DIVERGED     a training run whose errors became infinite
    └── InternalError              INTERNAL     our own fault; the message carries the cause
"""

from __future__ import annotations

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""numbers of the OSError of a disk, a quota or a file that takes no more"""
REFUSALS = frozenset(
    (
        *DISK_FULL,
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
        *(errno.ENAMETOOLONG, errno.ELOOP),
    )
)
"""numbers of the OSError of a disk that is full, or of a place that cannot be read or written"""


class AcousticError(Exception):
    """Base of all errors raised on purpose. `code` is the class's; `hint` is one sentence for the person."""

    code = "ERROR"
    default_hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint

    def to_dict(self) -> dict[str, str]:
        """The `error` object of the JSON contract."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class AudioError(AcousticError):
    """One file cannot be analysed."""

    code = "AUDIO"


class EmptyAudioError(AudioError):
    code = "EMPTY"
    default_hint = "The file holds no audio. Copy it again from its source."


class NotAudioError(AudioError):
    code = "NOT_AUDIO"
    default_hint = "Choose a music file: WAV, FLAC, Ogg, Opus, MP3, AIFF, AU, M4A, WMA or WebM."


class UnsupportedAudioError(AudioError):
    code = "UNSUPPORTED"
    default_hint = "Convert it to WAV, FLAC, MP3, Ogg, Opus or M4A and try again."


class CorruptAudioError(AudioError):
    code = "CORRUPT"
    default_hint = "The file is damaged. Copy or rip it again from its source."


class TooShortError(AudioError):
    code = "TOO_SHORT"
    default_hint = "Use a longer excerpt: a few seconds at least, ten or more for a steady answer."


class TooLongError(AudioError):
    code = "TOO_LONG"
    default_hint = "Split the recording, or raise the bound `max_duration_s`."


class TooLargeError(AudioError):
    code = "TOO_LARGE"
    default_hint = "Split or compress the recording, or raise the bound `max_file_mb`."


class BadParamsError(AudioError):
    code = "BAD_PARAMS"
    default_hint = "The header is probably wrong. Export the file again with a usual sample rate and channel count."


class NonFiniteError(AudioError):
    code = "NONFINITE"
    default_hint = "The samples hold NaN or infinity. Export the file again as 16- or 24-bit PCM."


class PoisonError(AudioError):
    code = "POISON"
    default_hint = "The file is left alone until it changes. It is probably damaged: copy or rip it again."


class StorageError(AudioError):
    code = "STORAGE"
    default_hint = "Check that the file exists and that you may read it."


class ModelError(AcousticError):
    code = "MODEL"
    default_hint = "Run `acoustic models list` to see the models that can be used."


class BackendError(AcousticError):
    code = "BACKEND"
    default_hint = "Run `acoustic doctor` to see what this machine offers, or use `--device auto`."


class StoppedError(AcousticError):
    code = "STOPPED"
    default_hint = "Analyse the file again."


class SettingsError(AcousticError):
    code = "SETTINGS"
    default_hint = "Run the command with `--help` to see what it takes."


class ManifestError(AcousticError):
    code = "MANIFEST"
    default_hint = "Correct the named row and run the command again."


class DivergedError(AcousticError):
    code = "DIVERGED"
    default_hint = "Lower `learning_rate` or `clip_norm`, or use another precision, and run it again."


class LibraryError(AcousticError):
    code = "LIBRARY"
    default_hint = "Run `acoustic library check`; `acoustic library backup` keeps a copy."


class ConflictError(LibraryError):
    code = "CONFLICT"
    default_hint = "Look at what was decided; undo it if it is wrong."


class TagError(AcousticError):
    code = "TAGS"
    default_hint = "The file was left as it was."


class InternalError(AcousticError):
    code = "INTERNAL"
    default_hint = "This is a fault of AcousticSense. Please report it with the message and the kind of file."
