"""What doctor says of the processor, of compiled graphs, and of what has never run on hardware."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from acoustic import doctor
from acoustic.network.backends import openvino

ROOT = Path(__file__).resolve().parent.parent
CPUINFO = (
    "processor\t: 0\nmodel name\t: A processor @ 2.0GHz\nflags\t\t: fpu avx2 {flags}\n\nprocessor\t: 1\nflags\t\t: \n"
)


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(doctor, "CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("amx_bf16 amx_tile avx512_vnni avx_vnni", "AMX in bfloat16 yes, AVX-512 VNNI yes, AVX2 VNNI yes"),
        ("avx512_vnni avx512_bf16", "AMX in bfloat16 no, AVX-512 VNNI yes, AVX2 VNNI no"),
        ("avx_vnni", "AMX in bfloat16 no, AVX-512 VNNI no, AVX2 VNNI yes"),
        ("amx_tile avx512_vnni_of_another_name", "AMX in bfloat16 no, AVX-512 VNNI no, AVX2 VNNI no"),
    ],
)
def test_linux_tells_what_the_processor_has(cpuinfo: Path, flags: str, said: str) -> None:
    cpuinfo.write_text(CPUINFO.format(flags=flags))
    check = doctor._processor()
    assert (check.name, check.ok, check.detail) == ("cpu", True, f"A processor @ 2.0GHz: {said}")


@pytest.mark.parametrize(
    ("version", "has", "said"), [("2026.1", True, "yes"), ("2026.1", False, "no"), ("", False, "unknown")]
)
def test_elsewhere_openvino_is_asked(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch, version: str, has: bool, said: str
) -> None:
    monkeypatch.setattr(doctor.platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(openvino, "version", lambda: version)
    monkeypatch.setattr(openvino, "has_bfloat16", lambda: has)
    detail = doctor._processor().detail
    assert "AMX in bfloat16 unknown, AVX-512 VNNI unknown, AVX2 VNNI unknown" in detail
    assert detail.endswith(f"bfloat16 in hardware, as OpenVINO finds, {said}")


def test_an_arm_processor_has_neither(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    monkeypatch.setattr(doctor.platform, "machine", lambda: "aarch64")
    assert "AMX, AVX-512 VNNI and AVX2 VNNI no" in doctor._processor().detail


def test_the_processor_is_told_without_torch() -> None:
    code = "import sys; from acoustic import doctor; doctor._processor(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("found", [None, object()], ids=["missing", "installed"])
def test_tensorrt_is_said_to_be_untried(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: found)
    check = doctor._torch2trt()
    assert check.detail.startswith("installed" if found else "not installed")
    assert "has not run on hardware yet" in check.detail
    candidate = {"state": "not measured", "ms": {}, "cosine": None, "note": "building takes minutes"}
    assert "(building takes minutes; this path has not run" in doctor._told({"backend": "tensorrt", **candidate})
    assert doctor._told({"backend": "compiled", **candidate}) == "not measured (building takes minutes)"


def test_what_became_of_a_compiled_size() -> None:
    assert doctor._told_compiled({"state": "compiling", "n_calls": 3}) == "compiling"
    measured = {"first_ms": 21400.0, "eager_ms": 30.06, "compiled_ms": 20.0, "cosine": 1.0}
    assert doctor._told_compiled({"state": "ready", "n_calls": 3, **measured}) == (
        "ready, 20.0 ms, where eager takes 30.1 ms, cosine 1.00000, 21.4 s to compile"
    )
