from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import ManifestError
from acoustic.settings import Settings
from acoustic.training.background import choose, hear
from acoustic.training.manifest import Row
from tests.conftest import GENRES
from tests.test_engine import song


def rows() -> list[Row]:
    """Two sources; one artist of a's has most of the Jazz."""
    made = [Row(f"a/{i}.opus", "a", "music", "Jazz", "a:prolific") for i in range(30)]
    made += [Row(f"b/{i}.opus", "b", "music", "Jazz", f"b:{i}") for i in range(10)]
    made += [Row(f"c/{i}.opus", "a", "music", "Blues", f"a:{i}") for i in range(3)]
    made += [Row("d/0.opus", "a", "music", "", "a:x"), Row("e/0.wav", "n", "noise", "", "n:x")]
    return made


def test_genres_are_even_and_groups_are_many() -> None:
    chosen = choose(rows(), GENRES, 8)
    assert Counter(row.genre for row in chosen) == {"Jazz": 8, "Blues": 3}
    assert sum(row.group == "a:prolific" for row in chosen) == 1


def test_the_choice_does_not_depend_on_the_order_of_the_rows() -> None:
    shuffled = rows()
    random.Random(0).shuffle(shuffled)
    assert choose(shuffled, GENRES, 8) == choose(rows(), GENRES, 8)


def test_songs_are_heard_as_a_persons_own(fresh: Settings, tmp_path: Path) -> None:
    files = [song(tmp_path / f"{i}.wav", 11 + 10 * i, i) for i in range(2)]
    (tmp_path / "bad.wav").write_text("hello")
    with OptimizedAudioClassifier(settings=fresh) as classifier:
        made = hear(classifier, [files[0], tmp_path / "bad.wav", files[1]])
        assert len(made) == 2
        for i, file in enumerate(files):
            analysis = classifier.analyze(file)
            assert analysis.votes is not None
            assert made.embeddings[i] == pytest.approx(analysis.embedding, abs=1e-5)
            assert made.logits[i] == pytest.approx(np.mean(analysis.votes.logits, axis=0), abs=1e-5)
        with pytest.raises(ManifestError):
            hear(classifier, [tmp_path / "bad.wav"])
