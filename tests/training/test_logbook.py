from __future__ import annotations

from pathlib import Path

from acoustic.training.logbook import FILE, FOLDER, Epoch, Logbook, read_history


def epoch(number: int) -> Epoch:
    return Epoch(number, 10 * number, 50, 1e-3, 33.0, {"genre": 2.0 / number}, {"genre": 2.5, "accuracy": 0.4})


def test_an_epoch_is_one_line() -> None:
    line = epoch(2).line()
    assert "\n" not in line
    for words in ("epoch 2", "step 20/50", "train genre 1.000", "accuracy 0.400", "33 samples/s"):
        assert words in line


def test_epochs_survive_and_those_beyond_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    lines: list[str] = []
    book = Logbook(tmp_path, lines.append)
    book.open(0)
    for number in (1, 2, 3):
        book.add(epoch(number))
    book.close()
    assert read_history(tmp_path) == [epoch(1), epoch(2), epoch(3)]
    with open(tmp_path / FILE, "a") as file:
        file.write('{"number": 4, "st')  # a line that a kill cut
    again = Logbook(tmp_path, lines.append)
    again.open(20)
    assert again.epochs == read_history(tmp_path) == [epoch(1), epoch(2)]
    again.close()


def test_tensorboard_can_read_what_is_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    book = Logbook(tmp_path, str)
    book.open(0)
    book.add(epoch(1))
    book.add(epoch(2))
    book.close()
    read = EventAccumulator(str(tmp_path / FOLDER))
    read.Reload()
    assert [(e.step, round(e.value, 4)) for e in read.Scalars("train/genre")] == [(10, 2.0), (20, 1.0)]
    assert {"held_out/accuracy", "learning_rate", "samples_per_s"} <= set(read.Tags()["scalars"])


def test_another_process_writes_nothing(tmp_path: Path) -> None:
    book = Logbook(None, str)
    book.open(0)
    book.add(epoch(1))
    book.close()
    assert list(tmp_path.iterdir()) == []
