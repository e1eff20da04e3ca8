"""Several processes walk the loss curve of one; a run on the command line, killed and taken up again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from acoustic.errors import SettingsError
from acoustic.settings import PROJECT_ROOT
from acoustic.training import checkpoint
from acoustic.training.logbook import read_history
from acoustic.training.processes import Processes, SharedBatchNorm2d, joined, share_batch_norm
from tests.training.test_train import data  # noqa: F401 (a fixture)

CONFIG = """
name = "tiny"
description = "made up"
labels = ["Low", "High"]
tags = ["Music", "Speech", "Musical instrument"]
held_out = 0.3
samples = {samples}
batch_size = 8
learning_rate = 3e-3
ema = 0.8
checkpoint_steps = 4
precision = "float32"
patch_dropout = 0.3
[architecture]
width = 32
depth = 1
n_heads = 2
stem = "conv"
pooling = "mean"
[mel]
sample_rate = 8000
n_fft = 512
hop_length = 256
n_mels = 32
fmax_hz = 4000.0
[[sources]]
name = "songs"
manifest = "songs.csv"
share = 0.8
label_weight = 0.5
group = ["artist"]
balance = true
[[sources]]
name = "speech"
folder = "speech"
kind = "speech"
share = 0.1
[[sources]]
name = "noise"
folder = "noise"
kind = "noise"
share = 0.1
[[teachers]]
name = "spectrum"
file = "teacher.py"
window_s = 2.048
hop_s = 2.048
gives_tags = true
"""


MOVED = 1e-3
"""what rounding alone does not move a weight by; weights are kept as float16, in steps of up to 1e-3 near 1"""


def command(folder: Path, data: Path, work: str, samples: int = 96) -> list[str]:  # noqa: F811
    config = folder / "tiny.toml"
    config.write_text(CONFIG.format(samples=samples))
    where = ["--data", str(data), "--work", str(folder / work), "--output", str(folder / f"{work}-models")]
    return ["-m", "acoustic", "train", str(config), *where]


def run(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_process_takes_its_even_share() -> None:
    assert [Processes(rank, 4).part(32) for rank in (0, 3)] == [slice(0, 8), slice(24, 32)]
    with pytest.raises(SettingsError, match="cannot be shared evenly by 3"):
        Processes(0, 3).part(32)


def test_alone_without_torchrun() -> None:
    with joined() as group:
        assert (group.first, group.n) == (True, 1)
        assert group.total(torch.tensor(2.0)) == 2.0
        group.wait()


def test_batch_norms_are_shared_with_their_parameters() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
    module[1][0].running_mean.fill_(2.0)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    x = torch.randn(2, 1, 8, 8)
    expected = module.eval()(x)
    held_by_an_optimiser = list(module.parameters())
    share_batch_norm(module)
    assert isinstance(module[1][0], SharedBatchNorm2d)
    assert all(a is b for a, b in zip(held_by_an_optimiser, module.parameters(), strict=True))
    assert module.state_dict().keys() == before.keys()
    assert torch.equal(module.eval()(x), expected)


@pytest.mark.slow
def test_two_processes_walk_the_curve_of_one(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """The same global batch; with a convolutional stem, so that batch norm must be shared as well."""
    run(command(tmp_path, data, "one"))
    run(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command(tmp_path, data, "two")])
    one, two = read_history(tmp_path / "one"), read_history(tmp_path / "two")
    assert [epoch.step for epoch in one] == [epoch.step for epoch in two]
    assert len(one) > 2
    assert one[0].train == pytest.approx(two[0].train, rel=1e-3, abs=1e-4)
    for a, b in zip(one, two, strict=True):  # Adam blows the rounding of sums up, a little more at each step
        assert a.train == pytest.approx(b.train, rel=0.03, abs=1e-4)
        errors = [{k: v for k, v in e.held_out.items() if k != "accuracy"} for e in (a, b)]  # of six songs, one is 0.17
        assert errors[0] == pytest.approx(errors[1], rel=0.03, abs=1e-4)
    a, b = (load_file(tmp_path / f"{work}-models" / "tiny" / "model.safetensors") for work in ("one", "two"))
    norms = [name for name in a if name.startswith("stem.") and a[name].ndim == 1 and "running" not in name]
    for name in norms:  # the stem's batch norms have learned, and the same
        assert float((a[name].float() - b[name].float()).abs().max()) < 2e-3, name
    assert max(float((a[name].float() - a[name].float().round()).abs().max()) for name in norms) > 4e-3
    assert (tmp_path / "two-models" / "tiny" / "card.json").is_file()


@pytest.mark.slow
def test_a_run_that_is_killed_ends_in_the_same_model(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """To the rounding of sums, which on a busy machine two runs do not always share: a last digit that differs at the
    start moves no weight by more than 1e-5 until the end, a run that goes on without its moments moves some by 0.35."""
    run(command(tmp_path, data, "whole", 480))
    cut = subprocess.Popen(
        [sys.executable, *command(tmp_path, data, "cut", 480)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    waited_until = time.monotonic() + 240
    while not (tmp_path / "cut" / checkpoint.FILE).exists() and time.monotonic() < waited_until:
        time.sleep(0.05)
    cut.send_signal(signal.SIGKILL)
    cut.wait()
    assert (tmp_path / "cut" / checkpoint.FILE).exists()
    assert not any((tmp_path / "cut-models").iterdir()), "the run was over before it was killed"
    run(command(tmp_path, data, "cut", 480))
    a, b = (load_file(tmp_path / f"{work}-models" / "tiny" / "model.safetensors") for work in ("whole", "cut"))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.allclose(value.float(), b[name].float(), atol=MOVED), name
    assert (tmp_path / "cut" / "report" / "index.html").is_file()
