"""The robustness table's statistics, its pairing, and one small table through the engine."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.cache import Cache
from acoustic.errors import ManifestError
from acoustic.settings import Settings
from acoustic.training.manifest import Row
from bench import robustness
from bench.conditions import CLEAN, CONDITIONS
from bench.robustness import PLAIN, Answered, Cast, Measure, Song, ask, between_marks, held_songs, paired_difference
from tests import makers
from tests.conftest import GENRES

RATE = 22_050


# --- statistics ---


def test_the_interval_is_bonett_and_prices() -> None:
    """Of 40 songs 6 are lost and 2 won: their formula, written out, but for 41 in the place of 42."""
    before = np.array([True] * 26 + [False] * 14)
    after = before.copy()
    after[:6], after[26:28] = False, True
    p_lost, p_won = 7 / 42, 3 / 42
    half = 1.959964 * math.sqrt((p_lost + p_won - (p_won - p_lost) ** 2) / 41)
    difference, low, high = paired_difference(before, after, [str(i) for i in range(40)])
    assert difference == pytest.approx(-0.1)
    assert (low, high) == pytest.approx((p_won - p_lost - half, p_won - p_lost + half), abs=1e-6)


def test_where_nothing_changes_the_interval_still_has_a_length() -> None:
    same = np.array([True, False] * 20)
    difference, low, high = paired_difference(same, same, [str(i) for i in range(40)])
    assert difference == 0
    assert low == pytest.approx(-high)
    assert 0.03 < high < 0.10


def test_songs_that_change_together_count_less() -> None:
    before, after = np.ones(60, bool), np.array(([True] * 6 + [False] * 6) * 5)
    alone = paired_difference(before, after, [str(i) for i in range(60)])
    together = paired_difference(before, after, [str(i // 6) for i in range(60)])
    assert alone[0] == together[0] == -0.5
    assert together[2] - together[1] > 2 * (alone[2] - alone[1])


@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("abcde")), min_size=1, max_size=60))
def test_to_and_fro_are_opposite_and_order_is_irrelevant(pairs: list[tuple[bool, bool, str]]) -> None:
    before, after, groups = (np.array(column) for column in zip(*pairs, strict=True))
    there = paired_difference(before, after, groups)
    back = paired_difference(after, before, groups)
    assert there == pytest.approx((-back[0], -back[2], -back[1]))
    assert -1 <= there[1] <= there[2] <= 1
    turned = paired_difference(before[::-1], after[::-1], groups[::-1])
    assert turned == pytest.approx(there)


def test_the_interval_covers_the_truth() -> None:
    """2,000 drawn tables of 40 songs, a true loss of 8 points: never much below 95 %, as they claim for small n."""
    rng = np.random.default_rng(0)
    u = rng.random((2_000, 40))
    before = u < 0.55
    after = (u < 0.45) | ((u > 0.55) & (u < 0.57))
    groups = [str(i) for i in range(40)]
    hits = [low <= -0.08 <= high for _, low, high in map(paired_difference, before, after, [groups] * 2_000)]
    assert 0.94 <= np.mean(hits) <= 0.985


# --- measures ---

SONGS = tuple(Song(Path(f"{i}.wav"), genre, f"group {i % 2}") for i, genre in enumerate(("A", "B", "", "A")))


def answered(**rows: list[list[float]]) -> Answered:
    answers = {(condition, PLAIN): np.array(p) for condition, p in rows.items()}
    return Answered("songs", False, SONGS, ("A", "B", "C"), answers)


def test_accuracy_counts_songs_with_a_genre_and_agreement_all() -> None:
    p = answered(
        clean=[[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]],
        noisy=[[0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]],
    )
    accuracy, same = p.measures()
    assert (accuracy.n, same.n) == (3, 4)
    assert accuracy.right[CLEAN, PLAIN].tolist() == [True, False, False]
    assert accuracy.right["noisy", PLAIN].tolist() == [False, True, True]
    assert accuracy.share("noisy", PLAIN) == pytest.approx(2 / 3)
    assert same.right[CLEAN, PLAIN].all()
    assert same.right["noisy", PLAIN].tolist() == [False, False, True, False]


def test_among_the_sets_own_genres_the_others_cannot_win() -> None:
    p = answered(clean=[[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]])
    labelled = dataclasses.replace(p, songs=SONGS[:2], answers={key: value[:2] for key, value in p.answers.items()})
    among_all, among_own = labelled.measures()
    assert among_all.right[CLEAN, PLAIN].tolist() == [True, False]
    assert among_own.right[CLEAN, PLAIN].tolist() == [True, True]


def test_targets_are_judged_by_the_numbers() -> None:
    def told(lost: int, six_worse: bool) -> str:
        right = {}
        for column in (PLAIN, "1 segment", "6 segments"):
            right[CLEAN, column] = np.ones(100, bool)
            right[robustness.NOISE_ROW, column] = np.arange(100) >= lost
        if six_worse:
            right[robustness.NOISE_ROW, "6 segments"] = np.arange(100) >= lost + 1
        measure = Measure("accuracy", tuple(map(str, range(100))), right)
        return "\n".join(robustness.judged("songs", measure))

    assert "-8.0" in told(8, False)
    assert told(8, False).count("reached") == 2
    assert "missed." in told(9, False)
    assert f"missed at {robustness.NOISE_ROW}" in told(8, True)


# --- through the engine ---


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Song]:
    folder = tmp_path_factory.mktemp("songs")
    found = []
    for i in range(5):
        path = makers.write(folder / f"{i}.wav", makers.music(6 + 2 * i, RATE, 1, seed=i), RATE)
        found.append(Song(path, GENRES[i % 2] if i < 4 else "", f"group {i}"))
    return found


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    folder = tmp_path_factory.mktemp("cast")
    noise = [makers.write(folder / f"noise{i}.wav", makers.noise(2, RATE, seed=i), RATE) for i in range(3)]
    speech = [makers.write(folder / "speech.wav", makers.music(2, RATE, 1, seed=9), RATE)]
    return Cast(noise, speech)


def test_a_songs_company_depends_on_the_song_alone(songs: list[Song], cast: Cast) -> None:
    for i in range(4):
        one, again = cast.company(songs, i, RATE), cast.company(songs, i, RATE)
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(again, field.name))
        lengths = {(6 + 2 * k) * RATE for k in range(5) if songs[k].genre != songs[i].genre}
        assert len(one.song) in lengths, "the other song is of another genre"


def test_a_set_of_one_group_has_no_other_song(songs: list[Song], cast: Cast) -> None:
    alike = [dataclasses.replace(song, group="one") for song in songs]
    with pytest.raises(ManifestError, match="no other song"):
        cast.company(alike, 0, RATE)


def test_a_small_table(
    songs: list[Song], cast: Cast, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness, "SONGS_AT_A_TIME", 2)
    chosen = [c for c in CONDITIONS if c.name in (CLEAN, robustness.NOISE_ROW, "-6 dB")]
    with ExitStack() as stack:
        columns = robustness.open_columns(["1 segment", "6 segments", PLAIN], str(model_folder), Cache(None), stack)
        table = ask("five songs", songs, cast, columns, chosen, certain=False)
        direct = columns[PLAIN].analyze(songs[3].file).verdict.probabilities
    assert len(table.answers) == 3 * 3
    for p in table.answers.values():
        assert p.shape == (5, len(GENRES))
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(table.answers[CLEAN, PLAIN][3], direct, atol=2e-3)  # the file is 16 bits, the copy float
    changed = np.abs(table.answers[robustness.NOISE_ROW, PLAIN] - table.answers[CLEAN, PLAIN]).max(axis=1)
    assert (changed > 1e-4).all(), "noise changes every answer"
    level = np.abs(table.answers["-6 dB", PLAIN] - table.answers[CLEAN, PLAIN]).max()
    assert level < changed.min(), "the mel's mean is taken off, so the level says next to nothing"
    shown = robustness.report("a model", [table])
    assert shown.count("| -6 dB |") == 2, "accuracy, and agreement for the song without a genre"
    numbers = json.loads(json.dumps(robustness.as_dict(table)))
    cell = next(c for c in numbers["measures"][-1]["cells"] if (c["condition"], c["column"]) == (CLEAN, PLAIN))
    assert cell["share"] == 1.0
    assert cell["against_clean"][0] == 0.0


def test_every_set_meets_every_configuration_in_every_condition(
    songs: list[Song],
    cast: Cast,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command, but for the asking, which would take minutes."""

    def answer(name: str, songs: list[Song], cast: Cast, classifiers: Any, *, certain: bool = True) -> Answered:
        rng = np.random.default_rng(0)
        cells = itertools.product([c.name for c in CONDITIONS], classifiers)
        answers = {cell: rng.dirichlet(np.ones(len(GENRES)), len(songs)) for cell in cells}
        return Answered(name, certain, tuple(songs), GENRES, answers)

    rows = [Row(str(song.file), "songs", "music", song.genre, song.group) for song in songs]
    rows += [Row(str(file), "noise", "noise", "", "n") for file in cast.noise]
    rows += [Row(str(file), "talk", "speech", "", "s") for file in cast.speech]
    manifest = tmp_path / "known.csv"
    manifest.write_text("file,genre\n" + "".join(f"{song.file},{song.genre}\n" for song in songs[:4]))
    monkeypatch.setattr(robustness, "read_rows", lambda config, data: rows)
    monkeypatch.setattr(robustness, "split", lambda rows, config: [True] * len(rows))
    monkeypatch.setattr(robustness, "ask", answer)
    monkeypatch.setattr(
        "sys.argv", ["x", "--data", str(tmp_path), "--manifest", str(manifest), "--model", str(model_folder)]
    )
    robustness.main()
    lines = capsys.readouterr().out.splitlines()
    tables = [list(part) for is_row, part in itertools.groupby(lines, lambda line: line.startswith("|")) if is_row]
    # each set knows two of four genres: accuracy among all and among its own, accuracy and agreement
    assert len(tables) == 4
    for head, _, *cells in ([[cell.strip() for cell in row.split("|")] for row in table] for table in tables):
        assert set(head) >= set(robustness.COLUMNS)
        assert [row[1] for row in cells] == [condition.name for condition in CONDITIONS]
        assert all(len(row) == len(head) for row in cells)


def test_held_songs_are_music_of_five_seconds_and_never_change(tmp_path: Path) -> None:
    rows = []
    for i, (kind, seconds) in enumerate([("music", 6), ("music", 4), ("noise", 6), ("music", 7), ("music", 8)]):
        makers.write(tmp_path / f"{i}.wav", makers.noise(seconds, 8_000), 8_000)
        rows.append(Row(f"{i}.wav", "s", kind, "A" if i else "", f"g{i}"))
    every = held_songs(rows, tmp_path, 10)
    assert {song.file.name for song in every[:2]} == {"3.wav", "4.wav"}
    assert [song.file.name for song in every[2:]] == ["0.wav"], "what has no genre comes last"
    assert held_songs(rows, tmp_path, 2) == every[:2]
    assert held_songs(rows, tmp_path, 0) == []


def test_a_document_gets_its_tables_between_its_marks() -> None:
    start, end = robustness.MARKS
    document = f"before\n{start}\nold\n{end}\nafter\n"
    new = between_marks(document, "| new |")
    assert new == f"before\n{start}\n\n| new |\n\n{end}\nafter\n"
    assert between_marks(new, "| new |") == new
    with pytest.raises(ValueError, match="has no"):
        between_marks("no marks", "text")


def test_columns_are_settings_that_exist() -> None:
    for changes in robustness.COLUMNS.values():
        dataclasses.replace(Settings(), **changes)
    assert robustness.NOISE_ROW in {condition.name for condition in CONDITIONS}
