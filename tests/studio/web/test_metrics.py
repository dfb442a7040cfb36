"""The numbers as a monitoring system reads them."""

import re
import time

import httpx
import pytest

from studio import __version__
from studio.domain.request import parse_request
from studio.services import Services
from studio.web.access import visitor_of
from studio.web.health import health_routes
from studio.web.metrics import Metric
from tests.studio.web.conftest import Serve

# The exposition format 0.0.4, line by line.
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
VALUE = r"(?:[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Inf)|NaN)"
HELP = re.compile(rf"# HELP ({NAME}) (?:[^\\\n]|\\[\\n])*")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge|histogram|summary|untyped)")
SAMPLE = re.compile(rf"({NAME})(?:{{({LABEL}(?:,{LABEL})*)}})? ({VALUE})")


def read(text: str) -> dict[str, float]:
    """Every sample by its name and labels; raises where a line is none of the format."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    helped: list[str] = []
    kinds: dict[str, str] = {}
    for line in text[:-1].split("\n"):
        if told := HELP.fullmatch(line):
            helped.append(told[1])
        elif told := TYPE.fullmatch(line):
            assert told[1] not in kinds and helped[-1] == told[1]
            kinds[told[1]] = told[2]
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            assert sample[1] == list(kinds)[-1], "the samples of a metric follow its type"
            key = line.rpartition(" ")[0]
            assert key not in found
            found[key] = float(sample[3])
    assert sorted(helped) == sorted(kinds)
    return found


def test_work_is_counted(services: Services, serve: Serve) -> None:
    url = serve(health_routes(services))
    secret, visitor = "a small purple diamond on a white background", visitor_of("v" * 24)
    before = read(httpx.get(f"{url}/metrics", timeout=60).text)
    assert before["studio_jobs_waiting"] == before["studio_pictures_total"] == 0
    assert not any(key.startswith(("studio_jobs_total{", "studio_picture_seconds{")) for key in before)
    services.generate(secret, num_inference_steps=2, num_images=2)
    endless = {"prompt": secret, "num_inference_steps": 150, "num_images": 64}
    jobs = [services.generation.submit(parse_request({**endless, "seed": n}), visitor) for n in range(3)]
    while services.runner.row(jobs[0].id).state == "queued":
        time.sleep(0.01)
    jobs[2].cancel()
    answer = httpx.get(f"{url}/metrics", timeout=60)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = read(answer.text)
    assert found['studio_jobs_total{kind="generate",state="done"}'] == 1
    assert found['studio_jobs_total{kind="generate",state="cancelled"}'] == 1
    assert (found["studio_jobs_waiting"], found["studio_jobs_running"]) == (1, 1)
    assert found["studio_pictures_total"] >= 2 and found['studio_models_loaded{model="pocket-sd15"}'] == 1
    assert 0 < found['studio_picture_seconds{quantile="0.5"}'] <= found['studio_picture_seconds{quantile="0.99"}'] < 600
    assert found[f'studio_info{{version="{__version__}"}}'] == 1
    assert found["process_resident_memory_bytes"] > 10**7
    assert 0 < time.time() - found["process_start_time_seconds"] < 10**6
    for private in ("diamond", visitor, str(services.settings.data_dir)):
        assert private not in answer.text
    for job in reversed(jobs):
        job.cancel()


@pytest.mark.parametrize("text", ['a"b', "back\\slash", "two\nlines", 'all"\\\n', "ünïcode", "{x=1}", "a, b"])
def test_labels_are_escaped(text: str) -> None:
    metric = Metric(name="studio_models_loaded", kind="gauge", help=text, samples=[({"model": text}, 1)])
    lines = list(metric.lines())
    key = next(iter(read("".join(f"{line}\n" for line in lines))))
    quoted = key.partition('="')[2].removesuffix('"}')
    back = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], quoted)
    assert back == text and len(lines) == 3
