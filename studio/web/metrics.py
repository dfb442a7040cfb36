"""The studio in numbers, in the text format that Prometheus reads (0.0.4). No prompt, visitor or path is in it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from studio import __version__
from studio.services import Services
from studio.tables import WAITING_OR_RUNNING

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WINDOW = 100
"""Pictures whose times are told: the newest."""
_QUANTILES = (0.5, 0.9, 0.99)

Labels = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A name with its values, each by its labels."""

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[Labels, float]]

    def lines(self) -> Iterator[str]:
        """As the format writes it, a line each."""
        yield f"# HELP {self.name} {_escaped(self.help)}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            told = ",".join(f'{name}="{_quoted(text)}"' for name, text in labels.items())
            yield f"{self.name}{{{told}}} {value!r}" if told else f"{self.name} {value!r}"


def metrics_text(services: Services) -> str:
    """All of them; raises StorageFailed where the ledger does not answer."""
    return "".join(f"{line}\n" for metric in _metrics(services) for line in metric.lines())


def _metrics(services: Services) -> Iterator[Metric]:
    yield from _of_jobs(services.ledger.job_counts())
    yield from _of_pictures(services)
    state = services.generation.engine_state()
    yield Metric(
        name="studio_models_loaded",
        kind="gauge",
        help="Models that are in memory.",
        samples=[({"model": model}, 1) for model in (state.loaded if state else ())],
    )
    yield _single("studio_info", "Which studio this is.", 1, version=__version__)
    process = psutil.Process()
    memory, started = process.memory_info().rss, process.create_time()
    yield _single("process_resident_memory_bytes", "Memory of the page's process.", memory)
    yield _single("process_start_time_seconds", "When it was started, in seconds since 1970.", started)


def _of_jobs(counts: Mapping[tuple[str, str], int]) -> Iterator[Metric]:
    over: Counter[tuple[str, str]] = Counter()
    present: Counter[str] = Counter(dict.fromkeys(WAITING_OR_RUNNING, 0))
    for (kind, state), count in counts.items():
        if state in WAITING_OR_RUNNING:
            present[state] += count
        else:
            over[kind, state] += count
    yield Metric(
        name="studio_jobs_total",
        kind="counter",
        help="Jobs that are over, by what they were and how they ended.",
        samples=[({"kind": kind, "state": state}, count) for (kind, state), count in sorted(over.items())],
    )
    yield _single("studio_jobs_waiting", "Jobs that nobody has started.", present["queued"])
    yield _single("studio_jobs_running", "Jobs that are worked on.", present["running"])


def _of_pictures(services: Services) -> Iterator[Metric]:
    yield _single("studio_pictures_total", "Pictures that are kept.", services.gallery.count())
    newest = services.gallery.find(limit=WINDOW)
    times = [record.seconds["total"] for record in newest if "total" in record.seconds]
    values = np.quantile(np.asarray(times, dtype=float), _QUANTILES) if times else ()
    yield Metric(
        name="studio_picture_seconds",
        kind="summary",
        help=f"What a picture took, of the newest {WINDOW}.",
        samples=[({"quantile": str(part)}, float(value)) for part, value in zip(_QUANTILES, values, strict=False)],
    )


def _single(name: str, said: str, value: float, **labels: str) -> Metric:
    return Metric(name=name, kind="gauge", help=said, samples=[(labels, value)])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
