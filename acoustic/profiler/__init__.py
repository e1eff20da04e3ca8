"""Where the milliseconds went: nested spans, a ring of the last runs with percentiles by stage, the resources in use.

    trace = Trace()
    with tracing(trace):
        with span("mel_spectrogram"):
            ...
    trace.timings_ms()  -> {"mel_spectrogram": 3.1, "total": 3.2}

spans           one run: nested, thread-aware, near-free where nobody measures
runs            the last runs, with percentiles
gpus, resources the machine and this process now
sampler         readings in the background, while somebody watches
trace_events    what was measured as Chrome trace and CSV
"""

from .gpus import MB, Gpu
from .resources import ResourceReader, Resources
from .runs import Percentiles, Profiler, Run, percentiles
from .sampler import Sample, Sampler
from .spans import Span, SpanExecutor, Trace, current, rest, span, tracing
from .trace_events import TraceWriter, to_chrome_trace, to_csv

__all__ = [
    "MB",
    "Gpu",
    "Percentiles",
    "Profiler",
    "ResourceReader",
    "Resources",
    "Run",
    "Sample",
    "Sampler",
    "Span",
    "SpanExecutor",
    "Trace",
    "TraceWriter",
    "current",
    "percentiles",
    "rest",
    "span",
    "to_chrome_trace",
    "to_csv",
    "tracing",
]
