"""Frozen records from TOML, each value checked against the type that its field states."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal

from ..errors import SettingsError


def read_toml(path: Path) -> dict[str, Any]:
    """The table in `path`; SettingsError names the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors begin a file with a mark
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}", "Check the name of the file and its folder.") from None
    except RecursionError:
        raise SettingsError(f"{path}: not TOML: nested too deeply") from None
    except ValueError as error:  # of its grammar, its encoding, or of a number of thousands of digits
        raise SettingsError(f"{path}: not TOML: {error}") from None


def record(kind: type[Any], raw: Any, where: str) -> Any:
    """A frozen record from a TOML table, nested ones too. SettingsError names the place of an unknown or missing key
    or of a value of the wrong type."""
    if not isinstance(raw, dict):
        raise SettingsError(f"{where}: a table is needed, not {raw!r}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(raw) - set(hints))
    if unknown:
        raise SettingsError(f"{where}: unknown key {unknown[0]!r}", f"Known keys: {', '.join(sorted(hints))}.")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in raw.items()}
    missing = [f.name for f in dataclasses.fields(kind) if _required(f) and f.name not in values]
    if missing:
        raise SettingsError(f"{where}: missing key {missing[0]!r}")
    return kind(**values)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that the field states."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return record(typing.cast(type[Any], hint), value, where)
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise SettingsError(f"{where}: {len(kinds)} values are needed, not {len(value)}")
        return tuple(_value(one, item, f"{where}[{i}]") for i, (one, item) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is Literal and value in arguments:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise SettingsError(f"{where}: the number is too large") from None
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where}: {value} is no finite number")
    if isinstance(value, str) and "\0" in value:
        raise SettingsError(f"{where}: {value!r} holds a character that no name has")
    if origin is None and type(value) is hint:
        return value
    wanted = " or ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise SettingsError(f"{where}: {value!r} is not {wanted}")
