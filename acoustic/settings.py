"""Every setting in one table: name, default, unit, help. The only reader of os.environ.

A setting is taken, in this order, from the caller, from the environment (`ACOUSTIC_` + its name in capitals), from its
default. Derived folders come from platformdirs' conventions through the entry points, so that importing this module
touches nothing.
"""

from __future__ import annotations

import dataclasses
import math
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SettingsError

if TYPE_CHECKING:
    from .records import SegmentSpec

PROJECT_ROOT = Path(__file__).resolve().parent.parent
ENV_PREFIX = "ACOUSTIC_"


def _setting(default: Any, unit: str, help: str, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    meta = {"unit": unit, "help": help, "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force. Build with `Settings.load()`; change one with `dataclasses.replace`."""

    # model and device
    model: str = _setting("", "name or folder", "Model to use; empty takes the embedded default.")
    device: str = _setting("auto", "auto|cpu|cuda|mps", "Where the network runs.")
    backend: str = _setting(
        "auto", "auto|eager|compiled|openvino|graphs|tensorrt", "How the network is run; auto takes the fastest here."
    )
    precision: str = _setting(
        "auto",
        "auto|float32|bfloat16|float16|int8",
        "Of the network's arithmetic; auto takes the fastest that is accurate.",
    )
    batch_size: int = _setting(8, "segments", "Most segments in one network call.", minimum=1, maximum=1024)
    decode_workers: int = _setting(
        2, "workers", "Files decoded at the same time; at most one a core.", minimum=1, maximum=64
    )
    torch_threads: int = _setting(
        0, "threads", "Threads of the network, at most one a core; 0 takes all cores.", minimum=0, maximum=512
    )
    # what is analysed
    n_segments: int = _setting(0, "segments", "Segments a track; 0 takes the model card's.", minimum=0, maximum=64)
    segment_mode: str = _setting("", "spread|middle", "Where segments are taken; empty takes the model card's.")
    denoise: bool = _setting(False, "on|off", "Spectral subtraction before the mel.")
    compress: bool = _setting(False, "on|off", "Dynamic-range compression before the mel.")
    rules: bool = _setting(False, "on|off", "Music-knowledge rules after the vote.")
    # bounds on untrusted files
    min_sample_rate_hz: int = _setting(4_000, "Hz", "Lowest sample rate accepted.", minimum=1)
    max_sample_rate_hz: int = _setting(768_000, "Hz", "Highest sample rate accepted.", minimum=1)
    max_channels: int = _setting(32, "channels", "Most channels accepted.", minimum=1)
    min_duration_s: float = _setting(1.0, "s", "Shortest audio accepted.", minimum=0.0)
    max_duration_s: float = _setting(36_000.0, "s", "Longest audio accepted.", minimum=1.0)
    decode_timeout_s: float = _setting(
        120.0, "s", "Longest time that a scan's worker may take for one file.", minimum=1.0, maximum=1e6
    )
    decode_memory_mb: float = _setting(
        4_096.0, "MB (2^20 bytes)", "Most memory that a scan's worker may take for one file.", minimum=64.0, maximum=1e7
    )
    max_file_mb: float = _setting(2_048.0, "MB (2^20 bytes)", "Largest file accepted.", minimum=0.001)
    whole_file_s: float = _setting(
        60.0, "s", "Up to this length a file is read whole; a longer one by slices.", minimum=1.0
    )
    # cache
    cache_dir: str = _setting("", "folder", "Where derived arrays are kept; empty takes `cache/` of the project.")
    cache_mb: float = _setting(2_048.0, "MB (2^20 bytes)", "Most disk that the cache may take.", minimum=0.0)
    cache_entries: int = _setting(1_000, "entries", "Entries of the cache held in memory.", minimum=0)
    # folders and page
    data_dir: str = _setting("", "folder", "The person's data (library, imported models); empty takes the platform's.")
    library: str = _setting("", "file", "The library of songs and decisions; empty takes `library.db` of `data_dir`.")
    host: str = _setting("127.0.0.1", "address", "Address that the page listens on.")
    host_names: str = _setting("", "names", "Further names under which the page may be asked, as a proxy's; by commas.")
    open_browser: bool = _setting(True, "on|off", "Open the page in a browser where there is a display.")
    port: int = _setting(
        7860, "port", "Port of the page; the next free one is taken if it is busy.", minimum=0, maximum=65_535
    )

    @classmethod
    def load(cls, env: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Settings from `overrides` (None means not given), else the environment, else the defaults.

        Raises SettingsError for an unknown name, a value of the wrong kind, or one out of range.
        """
        env = os.environ if env is None else env
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(overrides) - set(fields))
        if unknown:
            raise SettingsError(f"no setting is called {unknown[0]!r}", f"The settings are: {', '.join(fields)}.")
        values: dict[str, Any] = {}
        for name, spec in fields.items():
            raw: Any = overrides.get(name)
            if raw is None:
                raw = env.get(ENV_PREFIX + name.upper())
            if raw is not None:
                values[name] = _parse(name, raw, type(spec.default), spec.metadata)
        return cls(**values)

    def n_threads(self) -> int:
        """Threads of the network: more than there are cores would make it several times slower."""
        return min(self.torch_threads or available_cores(), available_cores())

    def n_workers(self) -> int:
        """Files that are decoded at a time, each in one thread or process: never more than there are cores."""
        return min(self.decode_workers, available_cores())

    def segments_of(self, card: SegmentSpec) -> SegmentSpec:
        """The card's segments, but for what is set here."""
        changes: dict[str, Any] = {}
        if self.n_segments:
            changes["n_segments"] = self.n_segments
        if self.segment_mode:
            changes["mode"] = self.segment_mode
        return dataclasses.replace(card, **changes)

    def cache_folder(self) -> Path:
        return _home("cache_dir", self.cache_dir) if self.cache_dir else PROJECT_ROOT / "cache"

    def data_folder(self) -> Path:
        """The person's data folder: never inside the project, never in a cache."""
        if self.data_dir:
            return _home("data_dir", self.data_dir)
        import platformdirs  # only the entry points ask for it

        try:
            return Path(platformdirs.user_data_dir("acousticsense", appauthor=False))
        except RuntimeError as error:  # an account without a home
            raise SettingsError(f"no place for your data is known: {error}", "Set ACOUSTIC_DATA_DIR.") from None

    def library_file(self) -> Path:
        """What cannot be computed again lies here: songs, analyses, decisions. Never in a cache."""
        return _home("library", self.library) if self.library else self.data_folder() / "library.db"


def _home(name: str, path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{name} = {path!r}: {error}", "Name a folder without `~`.") from None


def _parse(name: str, raw: Any, kind: type, meta: Mapping[str, Any]) -> Any:
    try:
        value = _parse_bool(raw) if kind is bool else kind(raw)
    except (TypeError, ValueError):
        raise SettingsError(f"{name} = {raw!r} is not a {kind.__name__} ({meta['unit']})") from None
    choices = meta["unit"].split("|")
    if kind is str and len(choices) > 1 and value not in (*choices, ""):
        raise SettingsError(f"{name} = {value!r} is none of {', '.join(choices)}")
    if kind is float and not math.isfinite(value):
        raise SettingsError(f"{name} = {value} is no finite number ({meta['unit']})")
    low, high = meta["minimum"], meta["maximum"]
    if kind in (int, float) and not ((low is None or value >= low) and (high is None or value <= high)):
        raise SettingsError(
            f"{name} = {value} {meta['unit']} is out of range (from {low} to {'no limit' if high is None else high})"
        )
    return value


def _parse_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ValueError(raw)


def available_cores() -> int:
    """Cores that this process may use (its affinity), which in a container is less than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def upload_folder() -> Path:
    """Where the page keeps what browsers send: a folder of this account alone, below GRADIO_TEMP_DIR or else the
    system's temporary one. All in it is swept, so it is never a folder that a person named."""
    base = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    return base if base.name == _account() else base / _account()


def lay_uploads(folder: Path) -> Path:
    """The folder in which gradio keeps uploads from now on: `folder`, if it can be this account's own (see
    `private`)."""
    try:
        own = private(folder)
    except OSError:  # nothing can be written there
        own = Path(tempfile.mkdtemp(prefix="acousticsense-", dir=tempfile.gettempdir()))
    os.environ["GRADIO_TEMP_DIR"] = str(own)
    return own


def private(folder: Path) -> Path:
    """`folder`, made where it is not there, if it is this account's own and closed to others; else a new one. Where
    everybody may write, another account could have made it first. Raises OSError."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    if not hasattr(os, "getuid"):
        return folder
    status = os.lstat(folder)
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
        if status.st_mode & 0o077:
            folder.chmod(0o700)
        return folder
    return Path(tempfile.mkdtemp(prefix="acousticsense-"))


def _account() -> str:
    owner = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return f"acousticsense-{owner}"


def _writable(folder: Path) -> Path:
    """`folder`, or where nothing can be written there a temporary one: torch does not start without."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK) and folder.is_dir():
        return folder
    return private(Path(tempfile.gettempdir()) / _account())


def prepare_process(settings: Settings) -> None:
    """Set what must be set once a process, at the entry and never at import.

    NUMBA_CACHE_DIR lets librosa's compiled functions survive the process, TORCHINDUCTOR_CACHE_DIR torch's; analytics
    and telemetry of libraries are off;
    hub look-ups are off, so that nothing phones home; uploads go to a folder of ours, where they can be swept; no proxy
    stands between the page and this machine.
    """
    folder = _writable(settings.cache_folder())
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
    os.environ.setdefault("MKL_CBWR", "AUTO")  # torch's matrix products add in the same order in every run
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ["GRADIO_TEMP_DIR"] = str(upload_folder())
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if direct.strip() != "*":
        names = [name.strip() for name in direct.split(",")]
        here = dict.fromkeys([*names, "localhost", "127.0.0.1", "::1", settings.host.strip("[]")])
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(name for name in here if name)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def worker_environment() -> dict[str, str]:
    """The environment of a worker process: each has one thread, because there are several of them."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def has_display() -> bool:
    """Whether a browser window could be opened for the person."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
