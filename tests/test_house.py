"""The house rules, as DESIGN tells them and ARCHITECTURE.md repeats them: who may import whom, and what has one
owner.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "acoustic"

GROUND = {"errors", "records", "kept", "settings", "writing"}
FLOOR_1 = {"signal", "network", "verdict", "cache", "profiler", "lane", "workers"}
ENGINE = GROUND | FLOOR_1 | {"decoding", "contents", "derived", "heard", "traffic"}
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(GROUND, GROUND),
    **{room: GROUND | {room} for room in FLOOR_1},
    "library": GROUND | {"verdict", "library"},
    "decoding": GROUND | {"signal"},
    "derived": GROUND | {"signal", "cache", "profiler", "network"},
    "heard": GROUND,
    "traffic": GROUND,
    "contents": GROUND | {"signal", "cache", "profiler"},
    "engine": ENGINE,
    "workstation": ENGINE | {"engine", "library", "__init__"},
    "training": ENGINE | {"engine", "library", "training"},
    "ui": {"workstation", "records", "kept", "errors", "settings", "ui"},
    "doctor": ENGINE | {"engine", "workstation"},
    "terminal": ENGINE | {"doctor", "library"},
    "cli": ENGINE | {"engine", "library", "workstation", "training", "doctor", "terminal", "__init__"},
    "__main__": {"cli"},
    "__init__": ENGINE | {"engine", "workstation"},
}
OWNERS = {
    "soundfile": {"signal/soundfile_decoder.py"},
    "av": {"signal/ffmpeg_decoder.py"},
    "gradio": {"ui"},
    "plotly": {"ui", "training"},
    "typer": {"cli"},
    "rich": {"terminal"},
    "pickle": set(),
    "audioread": set(),
    "sqlite3": {"library/database.py"},
    "mutagen": {"library/tags.py"},
    "openvino": {"network/backends/openvino.py"},
    "nncf": {"network/quantize.py"},
    "psutil": {"profiler"},
    "pynvml": {"profiler"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether it is one of ours) for every import statement, wherever it stands."""
    package = ("acoustic", *path.relative_to(PACKAGE).parts[:-1])
    found: list[tuple[str, bool]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, alias.name.split(".")[0] == "acoustic") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, *([node.module] if node.module else [])))
            names = [f"{name}.{alias.name}" for alias in node.names] if name == "acoustic" else [name]
            found += [(one, one.split(".")[0] == "acoustic") for one in names]
    return found


def test_every_room_is_in_the_table() -> None:
    assert {room_of(path) for path in modules()} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    for name, ours in imports(path):
        if not ours:
            continue
        parts = name.split(".")
        target = parts[1] if len(parts) > 1 else "__init__"
        target = target if target in MAY_IMPORT else "__init__"  # a public name or __version__ of the package itself
        assert target in MAY_IMPORT[room] | {room}, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_outside_things_have_one_owner(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    for name, ours in imports(path):
        owners = None if ours else OWNERS.get(name.split(".")[0])
        if owners is not None:
            assert place in owners or place.split("/")[0] in owners, f"{place} imports {name}"


def test_only_settings_reads_the_environment() -> None:
    for path in modules():
        if path.name != "settings.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            touched = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in ("environ", "getenv")]
            assert not touched, f"{path.relative_to(ROOT)} reads the environment"


def test_the_ground_floor_loads_no_torch() -> None:
    code = "import sys, acoustic, acoustic.errors, acoustic.records, acoustic.settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_resolve() -> None:
    import acoustic

    for name in acoustic.__all__:
        assert getattr(acoustic, name) is not None
    with pytest.raises(AttributeError):
        acoustic.no_such_name  # noqa: B018


def test_the_tree_names_no_machine() -> None:
    """No absolute path of somebody's machine in what is committed."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False).stdout.split(
        "\n"
    )
    texts = [
        ROOT / f for f in listed if f.endswith((".py", ".md", ".toml", ".sh", ".json")) and not f.startswith("tests/")
    ]
    for path in texts:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for forbidden in ("/wo" + "rk/", "/ro" + "ot/", "/home/"):
            assert forbidden not in text, f"{path.relative_to(ROOT)} names {forbidden}"
