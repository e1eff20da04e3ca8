"""Cards say what the records say, in words, and nothing from a file is ever markup."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

import pytest
from workstation_double import LABELS, analysis

from acoustic.errors import NotAudioError
from acoustic.records import Analysis, AudioWarning, Descriptors, Failure
from acoustic.ui import cards, wording
from acoustic.ui.desk import Desk, Entry

NASTY = "<img src=x onerror=alert(1)>\"'`{{value}}${1+1}&amp;.mp3"


class Reader(HTMLParser):
    """Elements, attributes and text of a fragment; checks that tags are balanced."""

    VOID = frozenset({"img", "path", "br", "circle"})

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(fragment)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


def desk_with(*entries: Entry) -> Desk:
    return Desk(entries=list(entries), chosen=0)


def failure(message: str = "the file holds text") -> Failure:
    return Failure("x", NotAudioError(message).to_dict())


def everything(desk: Desk) -> list[str]:
    entry = desk.current
    return [
        cards.files(desk),
        cards.verdict(entry),
        cards.player(entry, cards.file_url(entry.path)),
        cards.tags(entry),
        cards.descriptors(entry),
        cards.descriptors(dataclasses.replace(entry, undescribed={"message": NASTY})),
    ]


def nasty_analysis() -> Analysis:
    heard = analysis(review=True)
    verdict = dataclasses.replace(
        heard.verdict, labels=tuple(f"{NASTY}{label}" for label in LABELS), review_reasons=(NASTY, "SMALL_MARGIN")
    )
    return dataclasses.replace(
        heard, verdict=verdict, tags=((NASTY, 0.5),), warnings=(AudioWarning(NASTY, NASTY),), model=NASTY
    )


@pytest.mark.parametrize(
    "result", [nasty_analysis(), Failure(NASTY, {"code": NASTY, "message": NASTY, "hint": NASTY}), None]
)
def test_nothing_from_outside_becomes_markup(result):
    desk = desk_with(Entry(NASTY, f"/tmp/{NASTY}", stage=NASTY, result=result))
    for fragment in everything(desk):
        elements = Reader(fragment).tags
        assert "img" not in [tag for tag, _ in elements]
        assert not any(name.startswith("on") for _, attributes in elements for name in attributes)


def test_a_name_is_shown_whole_as_text():
    words = Reader(cards.files(desk_with(Entry(NASTY, "x", result=analysis())))).words
    assert NASTY in words


def test_a_name_that_is_not_utf8_can_be_shown():
    fragment = cards.files(desk_with(Entry("caf\udce9.mp3", "x", result=analysis())))
    fragment.encode("utf-8")
    assert "caf\ufffd.mp3" in fragment


def test_the_verdict_card_says_genre_confidence_set_and_that_no_review_is_needed():
    words = Reader(cards.verdict(Entry("song.wav", "x", result=analysis()))).words
    for expected in (
        "song.wav",
        "Jazz",
        "81 %",
        "Only Jazz is plausible.",
        "No review needed",
        "3 of 5 segments",
        "52 of 183 s",
    ):
        assert expected in words
    assert "Needs review" not in words


def test_the_verdict_card_gives_the_reasons_for_a_review_in_words_with_this_runs_numbers():
    words = Reader(cards.verdict(Entry("song.wav", "x", result=analysis(review=True)))).words
    assert "Needs review" in words
    assert "the best, Jazz, has only 38 %" in words
    assert "Jazz is only 7 points ahead of Blues" in words
    assert "It could be Jazz, Blues or Folk." in words
    assert "LOW_CONFIDENCE" not in words
    assert "3 % of the samples are at full scale." in words
    assert "Classical × 0.3" in words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("the file ends early", "The file ends early."),
        ("really?", "Really?"),
        ("song.mp3 is gone", "song.mp3 is gone."),
        ("min_confidence = 2", "min_confidence = 2."),
        ("stopped.", "Stopped."),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_but_names_stay_as_they_are(words, said):
    assert wording.sentence(words) == said


@pytest.mark.parametrize(
    "code", ["LOW_CONFIDENCE", "SMALL_MARGIN", "SEGMENTS_DISAGREE", "NOT_MUSIC", "SILENT", "TRUNCATED"]
)
def test_every_review_reason_has_a_sentence_of_its_own(code):
    sentence = wording.review_reason(code, analysis(review=True))
    assert code.replace("_", " ").capitalize() != sentence.rstrip(".")
    assert sentence.endswith(".")


def test_five_bars_as_long_as_the_probabilities_best_first():
    elements = Reader(cards.verdict(Entry("song.wav", "x", result=analysis()))).tags
    widths = [a["style"] for tag, a in elements if tag == "span" and "width" in (a.get("style") or "")]
    assert len(widths) == 5
    assert widths[0].startswith("width:81.0%")
    assert widths[1].startswith("width:9.0%")


def test_a_failed_file_says_why_and_what_to_do_beside_its_name():
    desk = desk_with(Entry("notes.mp3", "x", result=failure()))
    words = Reader(cards.files(desk)).words
    assert "notes.mp3" in words
    assert "This is not an audio file. The file holds text. Choose a music file" in " ".join(words.split())


def test_a_running_file_shows_its_stage_and_a_bar_that_a_reader_can_announce():
    elements = Reader(cards.files(desk_with(Entry("song.wav", "x", stage="inference")))).tags
    bar = next(a for _, a in elements if a.get("role") == "progressbar")
    assert bar["aria-valuenow"] == "75"
    assert not [a for tag, a in elements if tag == "button"]


def test_the_filter_shows_what_needs_review_or_failed():
    desk = desk_with(
        Entry("clear.wav", "1", result=analysis()),
        Entry("doubtful.wav", "2", result=analysis(review=True)),
        Entry("broken.wav", "3", result=failure()),
        Entry("running.wav", "4"),
    )
    shown = {}
    for desk.show in ("all", "review", "errors"):
        words = Reader(cards.files(desk)).words
        shown[desk.show] = [name for name in ("clear", "doubtful", "broken", "running") if f"{name}.wav" in words]
        assert "3 of 4 analysed · 1 to review · 1 failed" in words
    assert shown == {"all": ["clear", "doubtful", "broken", "running"], "review": ["doubtful"], "errors": ["broken"]}


def test_the_chosen_row_is_marked_for_readers_too():
    desk = desk_with(Entry("a", "1", result=analysis()), Entry("b", "2", result=analysis()))
    desk.chosen = 1
    rows = [a for tag, a in Reader(cards.files(desk)).tags if tag == "tr" and "data-index" in a]
    assert [row.get("aria-current") for row in rows] == [None, "true"]


def test_one_button_a_segment_that_starts_where_the_segment_starts():
    heard = analysis()
    elements = Reader(cards.player(Entry("s", "/tmp/ä b#?.wav", result=heard), cards.file_url("/tmp/ä b#?.wav"))).tags
    starts = [float(a["data-start"]) for tag, a in elements if tag == "button"]
    assert starts == pytest.approx(heard.start_s, abs=1e-3)
    source = next(a["src"] for tag, a in elements if tag == "audio")
    assert source == "gradio_api/file=/tmp/%C3%A4%20b%23%3F.wav"


def test_descriptors_wait_visibly_until_they_are_measured():
    waiting = Reader(cards.descriptors(Entry("s", "x", result=analysis()))).words
    assert waiting.count("measuring …") == 4
    measured = analysis(descriptors=Descriptors(118.2, 0.41, 0.22, None))
    words = Reader(cards.descriptors(Entry("s", "x", result=measured))).words
    for expected in ("118 BPM", "0.41", "22 %", "none found"):
        assert expected in words


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0 %"), (0.0001, "<1 %"), (0.006, "1 %"), (0.5, "50 %"), (0.996, ">99 %"), (1, "100 %")]
)
def test_percentages_never_claim_certainty_that_is_not_there(share, shown):
    assert wording.percent(share) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.99, "0:59"), (65.2, "1:05"), (3700, "1:01:40")])
def test_clock(seconds, shown):
    assert wording.clock(seconds) == shown
