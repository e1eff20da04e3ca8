"""What was taught, on disk: one folder a version, and which of them is in use.

    personal/<name>/personal.json          what it is, what it stands on, what was measured
    personal/<name>/personal.safetensors   weights and bias, float32; their SHA-256 is in personal.json
    personal/active.json                   {"history": [..., the version in use]}; null is the built-in model alone

Everything is written aside and renamed. Everything read is checked: a damaged version is a ModelError that names the
file, and never half a model.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..writing import write_whole
from .personal import Base, PersonalModel
from .version_file import (
    MAX_META_BYTES,
    META_FILE,
    TENSOR_FILE,
    check_base,
    encode,
    fitted_base,
    parse,
    read_bytes,
    read_folder,
    read_zip,
    unwritable,
)

ACTIVE_FILE = "active.json"
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,58}[A-Za-z0-9])?")
NONE = "none"
"""The name of the built-in model alone, where a version can be named."""
UNKNOWN = "(unknown)"
"""in the place of the name of what is in use, where that cannot be read"""
_CHOOSE = "Choose again with `acoustic personal use NAME`, or `acoustic personal use none`."


@dataclass(frozen=True, slots=True)
class Version:
    """One line of the list of versions; `error` says why it cannot be used, None where it can.

    `recalibrated`: the model's card has another calibration by now than the one that the version stands on. `n_songs`
    taught it; `before` and `after` are the shares of right answers on left-out songs, None where nothing was left out.
    """

    name: str
    active: bool
    created: str = ""
    model: str = ""
    own: tuple[str, ...] = ()
    n_songs: int = 0
    before: float | None = None
    after: float | None = None
    recalibrated: bool = False
    error: ModelError | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**said, "own": list(self.own), "error": self.error.to_dict() if self.error else None}


class Versions:
    """The versions in a folder, which is made at the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Numbers first, in their order, then names."""
        try:
            found = [e.name for e in self.folder.iterdir() if NAME.fullmatch(e.name) and (e / META_FILE).is_file()]
        except OSError:
            return []
        return sorted(found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))

    def free_name(self) -> str:
        """The number after the greatest that is taken."""
        taken = [int(name) for name in self.names() if name.isdigit()]
        return str(max(taken, default=0) + 1)

    def check_name(self, name: str) -> None:
        """Raises ModelError for a name that is taken or cannot be a folder's everywhere."""
        if not NAME.fullmatch(name) or name.lower() == NONE:
            raise ModelError(
                f"{name!r} cannot be a version's name",
                f"Use 1 to 60 letters without accents, digits, dots, dashes or underscores, and not {NONE!r}.",
            )
        if name.lower() in {other.lower() for other in self.names()}:
            raise ModelError(f"a version called {name!r} is there already", "Choose another name.")

    def listed(self, base: Base) -> list[Version]:
        """All versions, also those that cannot be used with `base`."""
        try:
            active = self.active()
        except ModelError as error:
            return [Version(UNKNOWN, True, error=error), *(self._line(name, False, base) for name in self.names())]
        names = self.names()
        if active is not None and active not in names:
            names.append(active)
        return [self._line(name, name == active, base) for name in names]

    def _line(self, name: str, active: bool, base: Base) -> Version:
        try:
            folder = self._find(name)
            stored = parse(*read_folder(folder), where=folder)
        except ModelError as error:
            return Version(name, active, error=error)
        problem = None
        try:
            check_base(name, stored, base)
        except ModelError as error:
            problem = error
        n_songs, before, after = stored.summary()
        return Version(
            name,
            active,
            stored.created,
            stored.model,
            stored.own,
            n_songs,
            before,
            after,
            recalibrated=problem is None and fitted_base(stored, base) != base,
            error=problem,
        )

    def load(self, name: str, base: Base) -> PersonalModel:
        """A version on top of `base`, with the calibration that it was taught with. ModelError if there is none of that
        name, if it is damaged, or if it was taught on another model or other weights."""
        folder = self._find(name)
        stored = parse(*read_folder(folder), where=folder)
        check_base(name, stored, base)
        return PersonalModel(
            name=name,
            base=fitted_base(stored, base),
            own=stored.own,
            weights=stored.weights,
            bias=stored.bias,
            temperature=stored.temperature,
            conformal_quantile=stored.conformal_quantile,
            created=stored.created,
            report=stored.report,
        )

    def save(self, personal: PersonalModel) -> Path:
        """Keep `personal` under its name; the version in use stays what it is. ModelError, see `check_name`."""
        self.check_name(personal.name)
        return self._keep(personal.name, *encode(personal))

    # --- which is in use ---

    def active(self) -> str | None:
        """The version in use, None for the built-in model alone."""
        return self._history()[-1]

    def use(self, name: str | None) -> None:
        """From now on this version, or None. It must be there; that it fits is seen when it is loaded."""
        if name is not None:
            self._find(name)
        try:
            history = self._history()
        except ModelError:  # a damaged pointer is replaced by choosing anew
            history = [None]
        if history[-1] != name:
            self._write_history([*history, name])

    def undo(self, base: Base) -> str | None:
        """Back to what was in use before; returns it. ModelError, and nothing is changed, where there is nothing
        before or it cannot be used with `base`."""
        history = self._history()
        if len(history) < 2:
            raise ModelError("there is nothing to undo", "`acoustic personal list` shows what there is.")
        before = history[-2]
        if before is not None:
            try:
                self.load(before, base)
            except ModelError as error:
                raise ModelError(f"what was in use before cannot be used: {error.message}", _CHOOSE) from error
        self._write_history(history[:-1])
        return before

    def _history(self) -> list[str | None]:
        file = self.folder / ACTIVE_FILE
        try:
            os.stat(file)
        except FileNotFoundError:
            return [None]
        except OSError as error:
            raise ModelError(
                f"{file}: cannot be read: {error.strerror}", "Check the permissions of its folder."
            ) from None
        try:
            said = json.loads(read_bytes(file, MAX_META_BYTES))
            history = said["history"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(f"{file}: is damaged: {type(error).__name__}: {str(error)[:200]}", _CHOOSE) from None
        if not isinstance(history, list) or not history or not all(h is None or isinstance(h, str) for h in history):
            raise ModelError(f"{file}: is damaged: {history!r} is no list of versions", _CHOOSE)
        return history

    def _write_history(self, history: list[str | None]) -> None:
        data = json.dumps({"history": history}).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / ACTIVE_FILE, data)
        except OSError as error:
            raise unwritable(self.folder, error) from None

    # --- in and out ---

    def export(self, name: str, target: Path) -> None:
        """Write a version to `target`: a zip if it ends so, else a folder. It must not be there yet."""
        folder = self._find(name)
        meta, tensors = read_folder(folder)
        parse(meta, tensors, where=folder)
        if target.exists():
            raise ModelError(f"{target}: is there already", "Choose another place.")
        try:
            if target.suffix.lower() == ".zip":
                aside = target.with_name(f".{target.name}.{os.getpid()}.new")
                try:
                    with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
                        archive.writestr(META_FILE, meta)
                        archive.writestr(TENSOR_FILE, tensors)
                    os.replace(aside, target)
                finally:
                    aside.unlink(missing_ok=True)
            else:
                target.mkdir(parents=True)
                write_whole(target / TENSOR_FILE, tensors)
                write_whole(target / META_FILE, meta)
        except OSError as error:
            raise unwritable(target, error) from None

    def take(self, source: Path, name: str = "") -> str:
        """Import what `export` wrote, under `name` or its own; returns the name. It is checked, and not put to use."""
        meta, tensors = read_zip(source) if source.is_file() else read_folder(source)
        parse(meta, tensors, where=source)
        name = name or str(json.loads(meta).get("name", ""))
        self.check_name(name)
        self._keep(name, meta, tensors)
        return name

    def _find(self, name: str) -> Path:
        if not NAME.fullmatch(name) or not (self.folder / name).is_dir():
            known = ", ".join(self.names())
            raise ModelError(
                f"there is no version called {name!r}",
                f"The versions are: {known}." if known else "Teach one with `acoustic personal fit MANIFEST.csv`.",
            )
        return self.folder / name

    def _keep(self, name: str, meta: bytes, tensors: bytes) -> Path:
        folder = self.folder / name
        aside = self.folder / f".{name}.{secrets.token_hex(4)}.new"  # a process's number comes again
        try:
            aside.mkdir(parents=True)
            write_whole(aside / TENSOR_FILE, tensors)
            write_whole(aside / META_FILE, meta)
            aside.rename(folder)
        except OSError as error:
            raise unwritable(folder, error) from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return folder
