from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from acoustic.errors import ModelError
from acoustic.library.background import Background, file_of, read, write
from tests.library.conftest import World


def test_what_is_written_is_read(world: World, background: Background, tmp_path: Path) -> None:
    file = file_of(tmp_path / "made-up")
    assert file.parent == tmp_path  # beside the model's folder, which holds the model and nothing else
    assert read(file, world.base) is None
    write(file, background, world.base.weights_digest, "made-up songs")
    found = read(file, world.base)
    assert found is not None
    assert found.logits == pytest.approx(background.logits, abs=0.01)
    assert found.embeddings == pytest.approx(background.embeddings, abs=0.01)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_another_models_background_is_refused(world: World, background: Background, tmp_path: Path) -> None:
    file = tmp_path / "b.safetensors"
    write(file, background, "f" * 64, "")
    with pytest.raises(ModelError, match="other weights") as refused:
        read(file, world.base)
    assert "acoustic.training.background" in refused.value.hint
    write(file, background, world.base.weights_digest, "")
    with pytest.raises(ModelError, match="widths"):
        read(file, dataclasses.replace(world.base, n_embedding=3))


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_damaged_file_is_refused(world: World, background: Background, tmp_path: Path, cut: int) -> None:
    file = tmp_path / "b.safetensors"
    write(file, background, world.base.weights_digest, "")
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ModelError, match="sound"):
        read(file, world.base)


def test_numbers_that_are_none_are_refused(world: World, background: Background, tmp_path: Path) -> None:
    file = tmp_path / "b.safetensors"
    write(file, dataclasses.replace(background, logits=background.logits * np.nan), world.base.weights_digest, "")
    with pytest.raises(ModelError, match="finite"):
        read(file, world.base)
    file.write_bytes(safetensors.numpy.save({"logits": background.logits}))
    with pytest.raises(ModelError, match="sound"):
        read(file, world.base)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="this account may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_typed_error(background: Background, tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(ModelError, match="cannot be written"):
        write(tmp_path / "shut" / "b.safetensors", background, "", "")
