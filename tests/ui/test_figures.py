"""Figures are right about time, frequency and milliseconds, whatever the track."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workstation_double import LABELS, analysis, overview

from acoustic.ui import figures
from acoustic.ui.colours import INK, SPECTROGRAM_SCALE, genre_colour


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def traces(figure, kind):
    return [trace for trace in figure.data if trace.type == kind]


@pytest.mark.parametrize("n_genres", [2, 10, 16, 17, 40])
def test_every_genre_has_a_colour_of_its_own_that_ink_can_be_read_on(n_genres):
    colours = [genre_colour(i, n_genres) for i in range(n_genres)]
    assert len(set(colours)) == n_genres
    assert min(contrast(colour, INK) for colour in colours) > 7


def test_the_spectrogram_scale_rises_in_lightness_so_that_it_reads_without_colour():
    lightness = [luminance(colour) for _, colour in SPECTROGRAM_SCALE]
    assert lightness == sorted(lightness)
    assert lightness[-1] - lightness[0] > 0.8


def test_segments_stand_where_they_were_taken_and_share_the_time_axis_of_the_spectrogram():
    heard = analysis(duration_s=183.2, n_segments=5)
    figure = figures.track_figure(heard, overview(183.2))
    bars = traces(figure, "bar")[0]
    assert list(bars.base) == pytest.approx(heard.start_s)
    assert [b + x for b, x in zip(bars.base, bars.x, strict=True)] == pytest.approx(heard.end_s)
    assert figure.layout.xaxis.matches == "x2"
    assert list(figure.layout.xaxis2.range) == [0, 183.2]
    assert figure.layout.xaxis.domain == figure.layout.xaxis2.domain
    assert figure.layout.xaxis2.title.text == "Time (s)"


def test_segments_carry_their_genre_as_text_not_by_colour_alone():
    bars = traces(figures.track_figure(analysis(n_segments=4)), "bar")[0]
    assert list(bars.text) == ["Jazz", "Blues", "Jazz", "Blues"]
    assert [row[2] for row in bars.customdata] == ["81 %", "52 %", "81 %", "52 %"]
    assert bars.marker.color[0] == bars.marker.color[2] != bars.marker.color[1]


def test_geometry_is_the_same_before_and_after_the_spectrogram():
    heard = analysis()
    before, after = figures.track_figure(heard), figures.track_figure(heard, overview())
    assert before.layout.height == after.layout.height
    assert before.layout.yaxis.domain == after.layout.yaxis.domain
    assert before.layout.margin == after.layout.margin
    assert "Drawing" in before.layout.annotations[0].text
    assert not after.layout.annotations


def test_a_note_is_text_not_markup():
    figure = figures.track_figure(analysis(), note="<b>no</b> spectrogram")
    assert figure.layout.annotations[0].text == "&lt;b&gt;no&lt;/b&gt; spectrogram"


def test_spectrogram_columns_stand_at_their_times_and_levels_are_below_the_loudest():
    seen = overview(60.0, n_columns=100)
    heat = traces(figures.track_figure(analysis(duration_s=60.0), seen), "heatmap")[0]
    z = np.asarray(heat.z)
    assert z.shape == seen.mel_db.shape
    assert z.dtype == np.int8
    assert z.max() == 0
    assert np.abs(z - np.maximum(seen.mel_db - seen.mel_db.max(), -figures.RANGE_DB)).max() <= 0.5
    assert np.asarray(heat.x) == pytest.approx(seen.times_s)
    assert len(set(heat.y)) == len(seen.mel_hz)


@pytest.mark.parametrize("n_mels", [64, 96, 128])
def test_frequency_ticks_stand_between_the_right_bands(n_mels):
    seen = overview(n_mels=n_mels)
    axis = figures.track_figure(analysis(), seen).layout.yaxis
    for position, label in zip(axis.tickvals, axis.ticktext, strict=True):
        number, unit = label.split()
        hz = float(number) * (1000 if unit == "kHz" else 1)
        low, high = seen.mel_hz[int(np.floor(position))], seen.mel_hz[int(np.ceil(position))]
        assert low <= hz <= high
    assert "1 kHz" in axis.ticktext
    gaps = -np.diff(axis.tickvals) * figures.SPECTROGRAM_PX / n_mels
    assert gaps.min() >= figures.TICK_GAP_PX


def test_a_tone_is_drawn_at_its_own_frequency():
    seen = overview(n_mels=96)
    band = int(np.argmin(np.abs(seen.mel_hz - 1000)))
    assert figures.band_position(float(seen.mel_hz[band]), seen.mel_hz) == pytest.approx(band)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0.5, 30)), min_size=1, max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_segments_of_one_lane_never_overlap_and_lanes_are_as_few_as_possible(spans):
    start = tuple(s for s, _ in spans)
    end = tuple(s + length for s, length in spans)
    rows = figures.lanes(start, end)
    for i in range(len(spans)):
        for j in range(i):
            assert rows[i] != rows[j] or end[i] <= start[j] + 1e-6 or end[j] <= start[i] + 1e-6
    # no more lanes than segments that sound at one time (interval graphs are perfect), but for the tolerance
    most = max(sum(s <= t < e for s, e in zip(start, end, strict=True)) for t in start)
    assert max(rows) + 1 <= most


def test_a_silent_overview_and_a_single_column_are_drawn():
    seen = overview(1.0, n_columns=1)
    silent = type(seen)(np.full_like(seen.mel_db, -100.0), seen.times_s, seen.mel_hz, 1.0)
    figure = figures.track_figure(analysis(duration_s=1.0, n_segments=1), silent)
    assert np.asarray(traces(figure, "heatmap")[0].z).shape == (96, 1)


def test_the_waterfall_adds_up_to_the_total():
    heard = analysis()
    bars = traces(figures.timings_figure(heard), "bar")[0]
    ends = [base + x for base, x in zip(bars.base, bars.x, strict=True)]
    assert bars.base[0] == 0
    assert list(bars.base[1:]) == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(heard.timings_ms["total"])
    assert bars.y[-1] == "The rest"
    assert bars.x[-1] == pytest.approx(12.0)


def test_a_waterfall_of_nothing_is_drawn():
    figure = figures.timings_figure(analysis(timings_ms={"total": 0.0}))
    assert figure.layout.height > 0


def test_lettering_of_labels_from_a_model_is_escaped():
    heard = analysis()
    labels = tuple(f"<i>{label}</i>" for label in LABELS)
    changed = type(heard.verdict)(
        **{name: getattr(heard.verdict, name) for name in heard.verdict.__slots__} | {"labels": labels}
    )
    bars = traces(figures.track_figure(analysis(verdict=changed)), "bar")[0]
    assert all("<" not in text for text in bars.text)
