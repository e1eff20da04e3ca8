"""Codes and numbers in plain words: pure functions, no HTML."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ..records import Analysis, Descriptors, Verdict

STAGES = {
    "queued": ("Waiting", 0.04),
    "load_audio": ("Reading the audio", 0.20),
    "mel_spectrogram": ("Drawing the spectrogram", 0.45),
    "preprocess": ("Preparing the segments", 0.60),
    "wait": ("Waiting for the network", 0.70),
    "inference": ("Listening", 0.75),
    "postprocess": ("Weighing the votes", 0.95),
    "descriptors": ("Measuring tempo and beat", 0.97),
    "done": ("Done", 1.0),
}
"""Stage -> (what a person reads, share of the progress bar when it begins)."""

SHORT_STAGES = {
    "load_audio": "Read audio",
    "mel_spectrogram": "Spectrogram",
    "preprocess": "Prepare",
    "wait": "Wait for turn",
    "inference": "Network",
    "postprocess": "Weigh votes",
    "descriptors": "Descriptors",
}
"""Stage -> two words that fit beside a bar."""

ERRORS = {
    "EMPTY": "The file is empty",
    "NOT_AUDIO": "This is not an audio file",
    "UNSUPPORTED": "This kind of audio cannot be read here",
    "CORRUPT": "The file is damaged",
    "TOO_SHORT": "The recording is too short",
    "TOO_LONG": "The recording is too long",
    "TOO_LARGE": "The file is too large",
    "BAD_PARAMS": "The file's header makes no sense",
    "NONFINITE": "The file holds invalid samples",
    "STORAGE": "The file cannot be read",
    "MODEL": "The model cannot be used",
    "BACKEND": "The network cannot run here",
    "INTERNAL": "AcousticSense failed on this file",
}

WARNINGS = {
    "TRUNCATED": "Cut short",
    "SILENT": "Silence",
    "CLIPPED": "Clipping",
}

DESCRIPTORS = (
    ("tempo_bpm", "Tempo", "Beats per minute, from the strongest periodicity of the onsets."),
    ("beat_strength", "Beat strength", "How clear the beat is: 0 none, 1 a drum machine."),
    ("low_freq_ratio", "Bass share", "Share of the sound's power below 200 Hz."),
    ("vocal_presence", "Vocals", "How strongly the network hears voices."),
)
"""(field of Descriptors, name, what it means)."""


def stage(name: str) -> tuple[str, float]:
    """What a person reads for a stage of the engine, and how far along it stands (0..1)."""
    return STAGES.get(name, (name.replace("_", " ").capitalize(), 0.5))


def short_stage(name: str) -> str:
    return SHORT_STAGES.get(name, name.replace("_", " ").capitalize())


def percent(share: float) -> str:
    """0.813 -> "81 %"; a share that is neither 0 nor 1 is never shown as 0 % or 100 %."""
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 <= share < 1:
        return ">99 %"
    return f"{100 * share:.0f} %"


def sentence(words: str) -> str:
    """With a capital letter and a full stop: "the file ends early" -> "The file ends early.". What begins with the name
    of a file or a setting ("song.mp3 is gone") keeps it as it is."""
    words = words.strip()
    is_name = any(c in "./\\_" for c in words.split(maxsplit=1)[0].rstrip(".…")) if words else False
    first = words[:1] if is_name else words[:1].upper()
    return first + words[1:] + ("" if not words or words[-1] in ".!?…" else ".")


def visible(words: str) -> str:
    """`words` from outside with what could reorder or hide text (control characters, overrides of the writing
    direction, lone halves of characters) shown as U+FFFD."""
    return "".join("\ufffd" if c in _REORDERING or unicodedata.category(c) in _HIDDEN else c for c in words)


_HIDDEN = ("Cc", "Cs", "Zl", "Zp")
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clock(seconds: float) -> str:
    """65.2 -> "1:05", 3700 -> "1:01:40"."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def milliseconds(ms: float) -> str:
    if 0 < ms < 0.05:
        return "<0.1 ms"
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


def duration(seconds: float) -> str:
    """A rough length of time: 40 -> "40 s", 1500 -> "25 min", 9000 -> "2 h 30 min"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def counted(n: int, noun: str) -> str:
    """1, "song" -> "1 song"; 12345, "song" -> "12,345 songs"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(words: Sequence[str], conjunction: str = "or") -> str:
    """["Jazz", "Blues", "Folk"] -> "Jazz, Blues or Folk"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def review_reason(code: str, analysis: Analysis) -> str:
    """One sentence for a review reason, with the numbers of this run."""
    verdict = analysis.verdict
    ranked = verdict.ranked()
    n_segments = len(verdict.segment_probabilities)
    margin = f"{100 * verdict.margin:.0f} point{'' if round(100 * verdict.margin) == 1 else 's'}"
    sentences = {
        "LOW_CONFIDENCE": f"No genre stands out: the best, {ranked[0][0]}, has only {percent(ranked[0][1])}.",
        "SMALL_MARGIN": (
            f"{ranked[0][0]} is only {margin} ahead of {ranked[1][0]}."
            if len(ranked) > 1
            else "The margin to the next genre is small."
        ),
        "SEGMENTS_DISAGREE": (
            f"The segments disagree: only {round(verdict.agreement * n_segments)} of {n_segments} "
            f"vote for {ranked[0][0]}."
        ),
        "NOT_MUSIC": "This may not be music: the network hears speech, noise or other sounds instead.",
        "SILENT": "There is nothing to hear: the recording is silent.",
        "TRUNCATED": "The file is cut short, so only part of the track was heard.",
    }
    return sentences.get(code, code.replace("_", " ").capitalize() + ".")


def prediction_set(verdict: Verdict) -> str:
    """What the conformal prediction set says."""
    if not verdict.prediction_set:
        return "No genre is plausible enough to name: nothing like this was in the calibration data."
    if len(verdict.prediction_set) == 1:
        return f"Only {verdict.prediction_set[0]} is plausible."
    if len(verdict.prediction_set) > 5:
        return (
            f"{len(verdict.prediction_set)} genres remain plausible, {listed(verdict.prediction_set[:3], 'and')} first."
        )
    return f"It could be {listed(verdict.prediction_set)}."


def descriptor_value(name: str, descriptors: Descriptors) -> str:
    value = getattr(descriptors, name)
    if value is None:
        return "none found"
    return f"{value:.0f} BPM" if name == "tempo_bpm" else f"{value:.2f}" if name == "beat_strength" else percent(value)
