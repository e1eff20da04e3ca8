"""What a person decided: the history only grows, what counts follows from it, two cannot decide one song."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from acoustic.errors import AcousticError, ConflictError, LibraryError, ManifestError
from acoustic.kept import NOT_MUSIC, Decision
from acoustic.library import decisions as module
from acoustic.library.checking import check
from acoustic.library.store import Library
from tests.library.made_library import add_track, add_tracks


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "library.db") as opened:
        yield opened


@pytest.fixture
def songs(library: Library) -> list[int]:
    return add_tracks(library.database, "a", "b", "c")


def genre_of(library: Library, song: int) -> str | None:
    found = library.decisions.in_force(song)
    return found.genre if found else None


def test_a_decision_says_all_about_itself(library: Library) -> None:
    song = library.database.write(lambda c: add_track(c, "a", "Rock", 0.375))
    made = library.decisions.decide(song, "  Wedding  dance ", who=" Ana ", expected=None, took_s=2.5)
    assert (made.track_id, made.who, made.kind, made.genre) == (song, "Ana", "genre", "Wedding dance")
    assert (made.said_genre, made.said_confidence, made.took_s) == ("Rock", 0.375, 2.5)
    assert made.made_at.endswith("+00:00")
    assert library.decisions.in_force(song) == made
    assert library.decisions.history(song) == [made]
    assert library.decisions.paths([song]) == {song: b"/music/a.mp3"}


def test_what_the_model_said_is_its_newest_word(library: Library) -> None:
    song = library.database.write(lambda c: add_track(c, "a", "Rock", 0.375))
    for sql in (
        "INSERT INTO models VALUES (2, 'other', 'v', '{}')",
        """INSERT INTO analyses SELECT 99, track_id, 2, made_at, duration_s, analyzed_s, n_segments, warnings,
            embedding, places, logits, tag_logits, embeddings, descriptors FROM analyses""",
        "INSERT INTO verdicts SELECT 99, '', 'Folk', 0.75, 0, 0, 1, 0, '[]', '[]', '{}'",
    ):
        library.database.write(lambda c, sql=sql: c.execute(sql))
    made = library.decisions.decide(song, "Folk", who="Ana", expected=None)
    assert (made.said_genre, made.said_confidence) == ("Folk", 0.75)


def test_labelled_are_genres_that_count(library: Library, songs: list[int]) -> None:
    a, b, c = songs
    library.decisions.decide(a, "Folk", who="Ana", expected=None)
    assert library.decisions.decide(b, NOT_MUSIC, who="Ana", expected=None).kind == "not_music"
    library.decisions.decide(c, None, kind="skip", who="Ana", expected=None)
    assert library.decisions.labelled() == [(a, "Folk")]
    assert genre_of(library, b) == NOT_MUSIC


def test_no_genre_is_called_as_what_is_no_music_however_it_is_spaced(library: Library, songs: list[int]) -> None:
    made = library.decisions.decide(songs[0], f"  {NOT_MUSIC.replace(' ', '  ')} ", who="Ana", expected=None)
    assert (made.kind, made.genre) == ("not_music", NOT_MUSIC)
    assert library.decisions.labelled() == []


def test_who_comes_second_hears_who_was_first(library: Library, songs: list[int]) -> None:
    first = library.decisions.decide(songs[0], "Folk", who="Ana", expected=None)
    with pytest.raises(ConflictError, match=r"a\.mp3: Ana said Folk on 2") as caught:
        library.decisions.decide(songs[0], "Jazz", who="Ben", expected=None)
    assert caught.value.to_dict()["code"] == "CONFLICT"
    second = library.decisions.decide(songs[0], NOT_MUSIC, who="Ben", expected=first.id)
    with pytest.raises(ConflictError, match="Ben called it no music"):
        library.decisions.decide(songs[0], "Jazz", who="Ana", expected=first.id)
    library.decisions.undo("Ben", second.id)
    library.decisions.undo("Ana")
    with pytest.raises(ConflictError, match="taken back"):
        library.decisions.decide(songs[0], "Jazz", who="Ben", expected=second.id)
    assert len(library.decisions.history(songs[0])) == 4


def test_two_threads_that_saw_the_same_cannot_both_decide(library: Library) -> None:
    tracks = add_tracks(library.database, *(f"song {i}" for i in range(30)))
    ready = threading.Barrier(2)
    won: list[tuple[int, str]] = []
    lost: list[str] = []

    def work(who: str) -> None:
        for song in tracks:
            ready.wait()
            try:
                library.decisions.decide(song, who, who=who, expected=None)
                won.append((song, who))
            except ConflictError as error:
                lost.append(error.message)

    threads = [threading.Thread(target=work, args=(who,)) for who in ("Ana", "Ben")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(song for song, _ in won) == tracks
    assert len(lost) == len(tracks)
    assert dict(won) == dict(library.decisions.labelled())
    assert len(library.decisions.history(limit=1000)) == len(tracks)


def test_undo_goes_back_step_by_step(library: Library, songs: list[int]) -> None:
    a, b, _ = songs
    first = library.decisions.decide(a, "Folk", who="Ana", expected=None)
    library.decisions.decide(a, "Jazz", who="Ana", expected=first.id)
    library.decisions.decide(b, "Rock", who="Ana", expected=None)
    assert [genre_of(library, song) for song in (a, b)] == ["Jazz", "Rock"]
    [line] = library.decisions.undo("Ana")
    assert (line.kind, line.track_id, line.undoes) == ("undo", b, 3)
    assert [genre_of(library, song) for song in (a, b)] == ["Jazz", None]
    library.decisions.undo("Ana")
    assert genre_of(library, a) == "Folk"
    library.decisions.undo("Ana")
    assert genre_of(library, a) is None
    with pytest.raises(LibraryError, match="Ana decided nothing"):
        library.decisions.undo("Ana")
    assert len(library.decisions.history()) == 6


def test_only_ones_own_steps_are_taken_back_unless_named(library: Library, songs: list[int]) -> None:
    mine = library.decisions.decide(songs[0], "Folk", who="Ana", expected=None)
    library.decisions.decide(songs[1], "Jazz", who="Ben", expected=None)
    library.decisions.undo("Ana")
    assert [genre_of(library, song) for song in songs] == [None, "Jazz", None]
    for named in (mine.id, 99):
        with pytest.raises(LibraryError, match=f"no decision {named}"):
            library.decisions.undo("Ana", named)
    [line] = library.decisions.undo("Ana", 2)
    assert (line.who, line.undoes) == ("Ana", 2)


def test_undo_is_refused_where_somebody_decided_since(library: Library, songs: list[int]) -> None:
    first = library.decisions.decide(songs[0], "Folk", who="Ana", expected=None)
    library.decisions.decide(songs[0], "Jazz", who="Ben", expected=first.id)
    with pytest.raises(ConflictError, match="Ben said Jazz"):
        library.decisions.undo("Ana")
    assert genre_of(library, songs[0]) == "Jazz"
    library.decisions.undo("Ben")
    assert genre_of(library, songs[0]) == "Folk"
    library.decisions.undo("Ana")
    assert genre_of(library, songs[0]) is None


def test_the_same_album_is_one_step(library: Library, songs: list[int]) -> None:
    a, b, c = songs
    kept = library.decisions.decide(a, "Folk", who="Ben", expected=None)
    skipped = library.decisions.decide(b, None, kind="skip", who="Ben", expected=None)
    made = library.decisions.decide_many([c, b, a, b], "Jazz", who="Ana", took_s=3.0)
    assert [line.track_id for line in made] == [c, b]
    assert len({line.batch for line in made}) == 1
    assert made[0].batch
    assert sum(line.took_s or 0 for line in made) == 3.0
    assert [genre_of(library, song) for song in songs] == ["Folk", "Jazz", "Jazz"]
    assert len(library.decisions.undo("Ana")) == 2
    assert library.decisions.in_force(a) == kept
    assert library.decisions.in_force(b) == skipped
    assert library.decisions.in_force(c) is None
    assert library.decisions.decide_many([a], "Jazz", who="Ana") == []


def test_a_step_of_which_one_song_was_decided_since_stays_whole(library: Library, songs: list[int]) -> None:
    made = library.decisions.decide_many(songs, "Jazz", who="Ana")
    library.decisions.decide(songs[1], "Rock", who="Ben", expected=made[1].id)
    with pytest.raises(ConflictError, match=r"b\.mp3: Ben said Rock"):
        library.decisions.undo("Ana")
    assert [genre_of(library, song) for song in songs] == ["Jazz", "Rock", "Jazz"]
    library.decisions.undo("Ana", made[0].id)
    assert [genre_of(library, song) for song in songs] == [None, "Rock", "Jazz"]


def test_a_skip_does_not_displace_a_genre(library: Library, songs: list[int]) -> None:
    made = library.decisions.decide(songs[0], "Folk", who="Ana", expected=None)
    library.decisions.decide(songs[0], None, kind="skip", who="Ana", expected=made.id)
    assert library.decisions.in_force(songs[0]) == made
    library.decisions.undo("Ana")
    assert library.decisions.in_force(songs[0]) == made


def test_a_clock_that_is_set_back_does_not_turn_the_order(
    library: Library, songs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = library.decisions.decide(songs[0], "Folk", who="Ana", expected=None)
    monkeypatch.setattr(module, "now", lambda: "1999-12-31T23:59:59.999999+00:00")
    second = library.decisions.decide(songs[0], "Jazz", who="Ben", expected=first.id)
    third = library.decisions.decide(songs[1], "Rock", who="Ana", expected=None)
    assert first.made_at < second.made_at
    assert first.made_at < third.made_at
    assert library.decisions.undo("Ana")[0].undoes == third.id
    assert check(library.database) == []


@pytest.mark.parametrize(
    ("genre", "kind", "who", "error"),
    [
        ("", "genre", "Ana", ManifestError),
        ("x" * 61, "genre", "Ana", ManifestError),
        ("bell\a", "genre", "Ana", ManifestError),
        ("\ud800", "genre", "Ana", ManifestError),
        (None, "genre", "Ana", LibraryError),
        ("Jazz", "genre", " ", LibraryError),
        ("Jazz", "genre", "\udcff", LibraryError),
        (None, "undo", "Ana", LibraryError),
    ],
)
def test_what_cannot_be_decided(
    genre: str | None, kind: str, who: str, error: type[AcousticError], library: Library, songs: list[int]
) -> None:
    with pytest.raises(error) as caught:
        library.decisions.decide(songs[0], genre, kind=kind, who=who, expected=None)  # type: ignore[arg-type]
    assert caught.value.hint
    assert library.decisions.history() == []


def test_a_song_that_is_not_there(library: Library, songs: list[int]) -> None:
    with pytest.raises(LibraryError, match="no song 99"):
        library.decisions.decide(99, "Jazz", who="Ana", expected=None)
    with pytest.raises(LibraryError, match="no song 99"):
        library.decisions.decide_many([*songs, 99], "Jazz", who="Ana")
    assert library.decisions.history() == []


@pytest.mark.parametrize("took_s", [float("nan"), float("inf"), -1.0])
def test_a_duration_that_is_none_is_not_kept(took_s: float, library: Library, songs: list[int]) -> None:
    assert library.decisions.decide(songs[0], "Jazz", who="Ana", expected=None, took_s=took_s).took_s is None


def test_history_cannot_be_changed(library: Library, songs: list[int]) -> None:
    library.decisions.decide(songs[0], "Jazz", who="Ana", expected=None)
    for sql in ("UPDATE decisions SET genre = 'Rock'", "DELETE FROM decisions"):
        with pytest.raises(LibraryError, match="history"):
            library.database.write(lambda c, sql=sql: c.execute(sql))


class DecidingMachine(RuleBasedStateMachine):
    """Two people decide, skip and take back in any order; a plain model of stacks says what must count."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.library = Library(Path(self.folder.name) / "library.db")
        self.songs = add_tracks(self.library.database, "a", "b", "c")
        self.standing: dict[int, list[Decision]] = {song: [] for song in self.songs}
        self.steps: list[list[Decision]] = []
        self.lines: list[Decision] = []

    def counts(self, song: int) -> Decision | None:
        """The model: the last genre or no music, else the last skip."""
        stack = self.standing[song]
        return next((d for d in reversed(stack) if d.kind != "skip"), stack[-1] if stack else None)

    def keep(self, made: list[Decision]) -> None:
        self.lines += made
        if made:
            self.steps.append(made)
        for decision in made:
            self.standing[decision.track_id].append(decision)

    @rule(song=st.integers(0, 2), genre=st.sampled_from(["Jazz", "Rock", NOT_MUSIC]), who=st.sampled_from("AB"))
    def decide(self, song: int, genre: str, who: str) -> None:
        track = self.songs[song]
        seen = self.counts(track)
        self.keep([self.library.decisions.decide(track, genre, who=who, expected=seen.id if seen else None)])

    @rule(song=st.integers(0, 2), who=st.sampled_from("AB"))
    def skip(self, song: int, who: str) -> None:
        track = self.songs[song]
        seen = self.counts(track)
        expected = seen.id if seen else None
        self.keep([self.library.decisions.decide(track, None, kind="skip", who=who, expected=expected)])

    @rule(song=st.integers(0, 2), who=st.sampled_from("AB"))
    def decide_on_what_was_not_seen(self, song: int, who: str) -> None:
        with pytest.raises(ConflictError):
            self.library.decisions.decide(self.songs[song], "Jazz", who=who, expected=10**6)

    @rule(songs=st.lists(st.integers(0, 2), max_size=4), who=st.sampled_from("AB"))
    def decide_many(self, songs: list[int], who: str) -> None:
        tracks = [self.songs[song] for song in songs]
        undecided = {t for t in tracks if (seen := self.counts(t)) is None or seen.kind == "skip"}
        made = self.library.decisions.decide_many(tracks, "Folk", who=who)
        assert {decision.track_id for decision in made} == undecided
        self.keep(made)

    @rule(who=st.sampled_from("AB"))
    def undo(self, who: str) -> None:
        step = next((step for step in reversed(self.steps) if step[0].who == who), None)
        if step is None:
            with pytest.raises(LibraryError, match="decided nothing"):
                self.library.decisions.undo(who)
        elif any(self.standing[d.track_id][-1] != d for d in step):
            with pytest.raises(ConflictError):
                self.library.decisions.undo(who)
        else:
            undone = self.library.decisions.undo(who)
            assert [line.undoes for line in undone] == [d.id for d in step]
            self.lines += undone
            self.steps.remove(step)
            for decision in step:
                self.standing[decision.track_id].pop()

    @invariant()
    def what_counts_is_what_the_model_says(self) -> None:
        for song in self.songs:
            assert self.library.decisions.in_force(song) == self.counts(song)

    @invariant()
    def the_history_only_grew(self) -> None:
        assert sorted(self.library.decisions.history(limit=10**6), key=lambda d: d.id) == self.lines

    def teardown(self) -> None:
        assert check(self.library.database) == []
        self.library.close()
        self.folder.cleanup()


TestDecidingMachine = DecidingMachine.TestCase
TestDecidingMachine.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
