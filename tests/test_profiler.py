import contextlib
import contextvars
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import psutil
import pytest

from acoustic import profiler
from acoustic.profiler import Profiler, Trace, current, rest, span, tracing


class Clock:
    """A clock that moves only when told, so that no test depends on how busy the machine is."""

    def __init__(self, monkeypatch):
        self.ns = 5_000_000_000
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.ns)

    def work(self, ms):
        self.ns += round(ms * 1e6)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def as_bars(trace):
    return [(s.name, s.start_ms, s.duration_ms, s.depth) for s in trace.spans()]


# --- spans ---


def test_nested_spans_form_a_waterfall(clock):
    trace = Trace()
    with tracing(trace):
        clock.work(1)
        with span("load_audio"):
            clock.work(2)
            with span("decode"):
                clock.work(3)
            with span("resample"):
                clock.work(4)
        with span("inference"):
            clock.work(5)
        clock.work(6)
    assert as_bars(trace) == [
        ("load_audio", 1.0, 9.0, 0),
        ("decode", 3.0, 3.0, 1),
        ("resample", 6.0, 4.0, 1),
        ("inference", 10.0, 5.0, 0),
    ]
    assert {s.thread for s in trace.spans()} == {threading.current_thread().name}
    assert trace.timings_ms() == {"load_audio": 9.0, "inference": 5.0, "total": 21.0}


def test_stages_of_equal_name_add_up_and_children_are_not_counted_twice(clock):
    trace = Trace()
    with tracing(trace):
        for _ in range(3):
            with span("mel"):
                clock.work(2)
                with span("mel"):
                    clock.work(1)
    assert trace.timings_ms() == {"mel": 9.0, "total": 9.0}


def test_stages_without_gaps_add_up_to_the_total(clock):
    trace = Trace()
    with tracing(trace):
        for name, ms in [("a", 1.5), ("b", 0.25), ("c", 40.0)]:
            with span(name):
                clock.work(ms)
    timings = trace.timings_ms()
    assert sum(ms for name, ms in timings.items() if name != "total") == timings["total"] == 41.75


def test_a_span_that_raises_is_kept_and_depth_recovers(clock):
    trace = Trace()
    with tracing(trace):
        with contextlib.suppress(RuntimeError), span("outer"), span("inner"):
            clock.work(1)
            raise RuntimeError
        with span("after"):
            clock.work(1)
    assert [(name, depth) for name, _, _, depth in as_bars(trace)] == [("outer", 0), ("inner", 1), ("after", 0)]
    assert current() is None


def test_total_runs_on_while_active_and_stops_after(clock):
    trace = Trace()
    assert trace.timings_ms() == {"total": 0.0}
    with tracing(trace):
        clock.work(3)
        assert trace.total_ms() == 3.0
    clock.work(100)
    assert trace.total_ms() == 3.0


def test_without_a_trace_nothing_is_kept(clock):
    assert current() is None
    first, second = span("a"), span("b")
    assert first is second  # no allocation
    with first:
        clock.work(1)
    trace = Trace()
    with tracing(trace):
        clock.work(1)
    with span("after"):
        clock.work(1)
    assert trace.spans() == ()


def test_an_inner_trace_does_not_disturb_the_outer(clock):
    outer, inner = Trace(), Trace()
    with tracing(outer), span("a"):
        with tracing(inner), span("b"):
            assert current() is inner
            clock.work(1)
        assert current() is outer
        with span("c"):
            clock.work(1)
    assert [(n, d) for n, _, _, d in as_bars(outer)] == [("a", 0), ("c", 1)]
    assert [(n, d) for n, _, _, d in as_bars(inner)] == [("b", 0)]


# --- work measured elsewhere ---


def test_added_work_ends_now_or_when_told(clock):
    trace = Trace()
    with tracing(trace):
        clock.work(50)
        trace.add("wait", 20.0, ended_ms_ago=30.0)
        trace.add("inference", 30.0)
    assert as_bars(trace) == [("wait", 0.0, 20.0, 0), ("inference", 20.0, 30.0, 0)]
    assert trace.timings_ms() == {"wait": 20.0, "inference": 30.0, "total": 50.0}


def test_added_work_takes_the_depth_of_where_it_is_added(clock):
    trace = Trace()
    with tracing(trace), span("outer"):
        clock.work(9)
        trace.add("part", 4.0)
    trace.add("later", 1.0)
    assert [(n, d) for n, _, _, d in as_bars(trace)] == [("outer", 0), ("part", 1), ("later", 0)]


def test_work_before_the_first_moment_moves_the_start(clock):
    trace = Trace()
    trace.add("inference", 10.0)
    clock.work(5)
    with tracing(trace), span("postprocess"):
        clock.work(1)
    assert as_bars(trace) == [("inference", 0.0, 10.0, 0), ("postprocess", 15.0, 1.0, 0)]
    assert trace.total_ms() == 16.0


def test_stages_of_another_process_follow_each_other_and_end_now(clock):
    trace = Trace()
    clock.work(100)
    with tracing(trace):
        trace.add_all({"load_audio": 30.0, "mel_spectrogram": 12.0})
        with span("preprocess"):
            clock.work(3)
    assert as_bars(trace) == [
        ("load_audio", 0.0, 30.0, 0),
        ("mel_spectrogram", 30.0, 12.0, 0),
        ("preprocess", 42.0, 3.0, 0),
    ]
    assert trace.total_ms() == 45.0


def test_rest_is_what_a_function_does_around_the_stages_that_it_is_handed(clock):
    trace = Trace()
    with tracing(trace):
        clock.work(1)  # outside: nobody's
        with rest("cache"):
            clock.work(2)
            with span("load_audio"):
                clock.work(3)
                with span("decode"):
                    clock.work(4)
            with span("mel"):
                clock.work(5)
            clock.work(6)
        with rest("cache"), span("all"):
            clock.work(7)
    assert as_bars(trace) == [
        ("cache", 1.0, 2.0, 0),
        ("load_audio", 3.0, 7.0, 0),
        ("decode", 6.0, 4.0, 1),
        ("mel", 10.0, 5.0, 0),
        ("cache", 15.0, 6.0, 0),
        ("all", 21.0, 7.0, 0),
    ]
    assert trace.timings_ms()["cache"] == 8.0


def test_rest_inside_a_span_and_without_a_trace(clock):
    with rest("nobody"):
        clock.work(1)
    trace = Trace()
    with tracing(trace), span("outer"), contextlib.suppress(RuntimeError), rest("cache"):
        clock.work(2)
        raise RuntimeError
    assert as_bars(trace) == [("outer", 0.0, 2.0, 0), ("cache", 0.0, 2.0, 1)]


class Cuda:
    """torch as a GPU's host sees it: `synchronize` takes as long as what was queued."""

    def __init__(self, clock, initialized=True):
        self.clock, self.queued_ms, self.initialized, self.n_waits = clock, 0.0, initialized, 0
        self.cuda = self

    def is_initialized(self):
        return self.initialized

    def synchronize(self):
        self.n_waits += 1
        self.clock.work(self.queued_ms)
        self.queued_ms = 0.0


def test_a_gpus_work_is_counted_where_it_was_asked_for(clock, monkeypatch):
    torch = Cuda(clock)
    monkeypatch.setitem(sys.modules, "torch", torch)
    trace = Trace()
    with tracing(trace):
        torch.queued_ms = 5.0  # somebody else's, before
        with span("inference", gpu=True):
            clock.work(1)
            torch.queued_ms = 40.0
        with span("postprocess"):
            clock.work(2)
    assert trace.timings_ms() == {"inference": 41.0, "postprocess": 2.0, "total": 48.0}
    torch.n_waits = 0
    with span("inference", gpu=True):  # nobody measures: nothing waits
        torch.queued_ms = 1.0
    assert torch.n_waits == 0


def test_without_cuda_nothing_waits(clock, monkeypatch):
    torch = Cuda(clock, initialized=False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with tracing(Trace()), span("inference", gpu=True):
        pass
    monkeypatch.delitem(sys.modules, "torch")
    trace = Trace()
    with tracing(trace), span("inference", gpu=True):
        clock.work(1)
    assert torch.n_waits == 0
    assert trace.timings_ms()["inference"] == 1.0


def test_an_error_of_the_gpu_is_not_hidden_by_waiting_for_it(clock, monkeypatch):
    torch = Cuda(clock)
    monkeypatch.setitem(sys.modules, "torch", torch)
    trace = Trace()
    with pytest.raises(KeyError), tracing(trace), span("inference", gpu=True):
        raise KeyError
    assert [s.name for s in trace.spans()] == ["inference"]
    assert torch.n_waits == 1


# --- threads ---


def in_thread(function, name="worker"):
    thread = threading.Thread(target=function, name=name)
    thread.start()
    thread.join()


def test_threads_have_no_trace_until_they_enter_one():
    trace = Trace()

    def stranger():
        with span("lost"):
            pass

    def worker():
        with tracing(trace), span("kept"):
            pass

    with tracing(trace), span("main"):
        in_thread(stranger)
        in_thread(worker, "lane-1")
    assert {(s.name, s.depth, s.thread) for s in trace.spans()} == {
        ("main", 0, threading.current_thread().name),
        ("kept", 0, "lane-1"),
    }


def test_a_copied_context_keeps_trace_and_depth():
    trace = Trace()

    def worker():
        with span("inner"):
            pass

    with tracing(trace), span("outer"):
        context = contextvars.copy_context()
        in_thread(lambda: context.run(worker))
    assert {(s.name, s.depth) for s in trace.spans()} == {("outer", 0), ("inner", 1)}


def test_traces_of_many_threads_do_not_mix():
    traces = [Trace() for _ in range(8)]
    shared = Trace()
    ready = threading.Barrier(8)

    def worker(i):
        ready.wait()
        for _ in range(200):
            with tracing(traces[i]), span(f"stage-{i}"), span("inner"):
                pass
            shared.add("shared", 1.0)

    threads = [threading.Thread(target=worker, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, trace in enumerate(traces):
        assert {(s.name, s.depth) for s in trace.spans()} == {(f"stage-{i}", 0), ("inner", 1)}
        assert len(trace.spans()) == 400
    assert shared.timings_ms()["shared"] == pytest.approx(1600.0)


def test_the_real_clock_is_in_milliseconds():
    trace = Trace()
    with tracing(trace), span("sleep"):
        time.sleep(0.02)
    assert trace.timings_ms()["sleep"] >= 19.9


# --- runs ---


def run_of(**stages):
    trace = Trace()
    for name, ms in stages.items():
        trace.add(name, ms)
    return trace


def test_percentiles_are_numpys_by_stage():
    kept = Profiler(n_runs=1000)
    values = np.random.default_rng(0).gamma(2.0, 10.0, 200)
    for ms in values:
        kept.add(run_of(inference=ms))
    kept.add(run_of(load_audio=7.0))
    found = kept.percentiles()
    assert list(found)[-1] == "total"
    inference = found["inference"]
    np.testing.assert_allclose(
        (inference.mean, inference.p50, inference.p90, inference.p99),
        (values.mean(), *np.percentile(values, (50, 90, 99))),
        atol=1e-5,
    )
    assert (inference.n, found["load_audio"].n, found["total"].n) == (200, 1, 201)
    assert found["load_audio"].p99 == pytest.approx(7.0)
    assert kept.means_ms()["inference"] == pytest.approx(values.mean())


def test_ring_keeps_the_last_runs_only():
    kept = Profiler(n_runs=3)
    for i in range(10):
        kept.add(run_of(a=float(i)), f"song-{i}")
    assert [run.label for run in kept.runs()] == ["song-7", "song-8", "song-9"]
    assert [run.number for run in kept.runs()] == [8, 9, 10]
    assert [run.number for run in kept.runs(after=9)] == [10]
    assert kept.n_added == 10
    assert kept.percentiles()["a"].p50 == pytest.approx(8.0)


def test_a_kept_run_does_not_change_any_more(clock):
    kept, trace = Profiler(), Trace()
    with tracing(trace), span("a"):
        clock.work(1)
    run = kept.add(trace, "song")
    trace.add("b", 5.0)
    assert run.timings_ms == {"a": 1.0, "total": 1.0}
    assert [s.name for s in run.spans] == ["a"]


def test_a_run_knows_when_it_began_and_whether_its_answer_was_known():
    trace = Trace()
    before = time.time()
    with tracing(trace), span("cache"):
        time.sleep(0.01)
    run = Profiler().add(trace, "song")
    assert before - 0.1 <= run.started_at <= run.ended_at + 0.1
    assert run.ended_at - run.started_at >= 0.009
    assert run.cached
    assert not Profiler().add(run_of(inference=1.0)).cached


def test_a_run_lies_where_the_wall_clock_is_and_is_as_long_as_it_took(clock, monkeypatch):
    wall = [1e9]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    monkeypatch.setattr(time, "time_ns", lambda: round(wall[0] * 1e9))
    kept = Profiler()

    def measured(set_by_s=0.0):
        trace = Trace()
        with tracing(trace), span("a"):
            clock.work(500)
            wall[0] += 0.5 + set_by_s
        return kept.add(trace)

    first = measured()
    assert (first.started_at, first.ended_at) == (pytest.approx(1e9), pytest.approx(1e9 + 0.5))
    wall[0] += 8 * 3600  # the machine slept: the clock of spans stood still
    later = measured()
    assert (later.started_at, later.ended_at) == (pytest.approx(wall[0] - 0.5), wall[0])
    for set_by_s in (3600.0, -7200.0):
        torn = measured(set_by_s)
        assert (torn.started_at, torn.ended_at) == (pytest.approx(wall[0] - 0.5), wall[0])


def test_no_runs_no_percentiles():
    assert Profiler().percentiles() == {}
    assert Profiler().means_ms() == {}
    assert Profiler().runs() == ()


# --- resources ---


def test_resources_of_this_process():
    resources = Profiler().resources()
    assert len(resources.cpu_percent_by_core) == psutil.cpu_count()
    assert all(0 <= share <= 100 for share in resources.cpu_percent_by_core)
    assert 5 < resources.process_rss_mb < resources.memory_total_mb
    assert 0 < resources.memory_available_mb <= resources.memory_total_mb
    assert resources.process_threads >= 1
    assert bool(resources.gpus) != bool(resources.gpu_note)


def test_the_processes_that_decode_are_seen_too():
    code = "import time; held = bytearray(40_000_000); print('there', flush=True)\nwhile True: time.sleep(0)"
    kept = Profiler()
    before = kept.resources().n_workers  # what other tests of this process left behind
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            kept.resources()
            time.sleep(0.3)
            resources = kept.resources()
        finally:
            process.kill()
    assert resources.n_workers == before + 1
    assert resources.workers_rss_mb > 40
    assert resources.workers_cpu_percent > 0
    assert kept.resources().n_workers == before


def is_on_a_disk(path):
    """Whether writing there moves bytes to a device that the system counts: memory and other machines are none."""
    mounted = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    holding = [(point, kind) for point, kind in mounted if path.resolve().is_relative_to(point)]
    return bool(holding) and max(holding, key=lambda one: len(one[0]))[1] in ("ext3", "ext4", "xfs", "btrfs", "f2fs")


def test_what_is_written_to_disk_is_counted(tmp_path):
    kept = Profiler()
    before = kept.resources().written_mb
    if before is None:
        pytest.skip("this system does not say what a process writes")
    if not is_on_a_disk(tmp_path):
        pytest.skip("files of tests do not lie on a disk here")
    with open(tmp_path / "some", "wb") as file:
        file.write(os.urandom(3 * 2**20))
        file.flush()
        os.fsync(file.fileno())
    assert 3 <= kept.resources().written_mb - before < 1000


class NVMLError(Exception):
    pass


def stand_in(**changes):
    """pynvml as it answers on a machine with two cards, one of which is a slice without utilisation and power."""

    def refuse(*_):
        raise NVMLError("Not Supported")

    def only_first(value):
        return lambda handle, *_: value if handle == 0 else refuse()

    answers = {
        "NVMLError": NVMLError,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda i: i,
        "nvmlDeviceGetName": lambda handle: ("NVIDIA A", b"NVIDIA B")[handle],
        "nvmlDeviceGetMemoryInfo": lambda handle: types.SimpleNamespace(used=3 * 2**20, total=1024 * 2**20),
        "nvmlDeviceGetUtilizationRates": only_first(types.SimpleNamespace(gpu=87, memory=40)),
        "nvmlDeviceGetTemperature": lambda handle, sensor: 55,
        "nvmlDeviceGetPowerUsage": only_first(71_500),
    }
    return types.SimpleNamespace(**{**answers, **changes})


def test_stand_in_has_the_names_of_the_real_module():
    import pynvml

    assert {name for name in vars(stand_in()) if not hasattr(pynvml, name)} == set()


def test_gpus_in_units_with_none_for_what_a_card_does_not_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", stand_in())
    resources = Profiler().resources()
    assert resources.gpu_note == ""
    assert resources.gpus == (
        profiler.Gpu("NVIDIA A", 87.0, 3.0, 1024.0, 55.0, 71.5),
        profiler.Gpu("NVIDIA B", None, 3.0, 1024.0, 55.0, None),
    )


def fails(*_):
    raise NVMLError("Driver Not Loaded")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, "nvidia-ml-py is not installed"),
        (stand_in(nvmlInit=fails), "no NVIDIA GPU, or no driver for it: Driver Not Loaded"),
        (stand_in(nvmlDeviceGetCount=fails), "does not answer"),
        (stand_in(nvmlDeviceGetCount=lambda: 0), "no NVIDIA GPU in this machine"),
    ],
)
def test_no_gpu_is_said_plainly(monkeypatch, module, words):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    resources = Profiler().resources()
    assert resources.gpus == ()
    assert words in resources.gpu_note


def test_module_loads_no_torch_and_no_nvml():
    code = "import sys, acoustic.profiler; sys.exit(bool({'torch', 'pynvml'} & set(sys.modules)))"
    root = Path(profiler.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
