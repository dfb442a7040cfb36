"""What several actors give and what one that is killed costs: `python -m bench.ray_actors [ACTORS]`, 2 by default.

The same jobs of two visitors, through the line and into a gallery, by one process of our own and by actors of Ray on
this machine, in turn, three times each after a picture to warm up. Then the same once more, where an actor is ended by
SIGKILL in the middle of a picture. It gives rows of a table, and how long it took until all actors were there.
"""

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from studio.domain.events import Progress  # noqa: E402
from studio.domain.request import GenerationRequest  # noqa: E402
from studio.engine_process import EngineProcess  # noqa: E402
from studio.generation import EngineHolder  # noqa: E402
from studio.job import Job  # noqa: E402
from studio.ray_engines import RayEngines  # noqa: E402
from studio.services import Services, open_services  # noqa: E402
from studio.settings import Settings  # noqa: E402

JOBS, TURNS, STEPS = 8, 3, 25
_POLL_S = 0.005


def asked(services: Services, seed: int) -> Job:
    """A picture for one of two visitors."""
    request = GenerationRequest(prompt="a large red circle on a grey background", seed=seed, num_inference_steps=STEPS)
    return services.generation.submit(request, f"visitor {seed % 2}", again=True)


def processor_s() -> float:
    """What this process and all that it began have computed: by it they can be told on a machine that does other things
    as well."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def taken(services: Services) -> tuple[float, float]:
    """How long the jobs take in all, and how long processors work on them."""
    began, computed = time.perf_counter(), processor_s()
    for job in [asked(services, seed) for seed in range(JOBS)]:
        job.result(600)
    return time.perf_counter() - began, processor_s() - computed


def with_a_kill(services: Services, actors: RayEngines) -> tuple[float, float]:
    """The same where an actor's process ends in the middle of a picture, and how long that actor was away."""
    jobs = [asked(services, seed) for seed in range(JOBS)]
    while not any(isinstance(event, Progress) and event.step > STEPS // 2 for event in jobs[2].present()):
        time.sleep(_POLL_S)
    killed, there = time.perf_counter(), {actor.pid for actor in actors.actors}
    os.kill(next(actor.pid for actor in actors.actors if actor.is_busy), signal.SIGKILL)
    away: list[float] = []
    while not away or any(not job.is_over for job in jobs):
        now = {actor.pid for actor in actors.actors}
        if not away and len(now) == len(there) and now != there:
            away.append(time.perf_counter() - killed)
        time.sleep(_POLL_S)
    took = max(job.present()[-1].time for job in jobs) - min(job.present()[0].time for job in jobs)
    for job in jobs:
        job.result(1)
    return took, away[0]


def main() -> None:
    """Print what came of it."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory() as folder:
        one = Settings(data_dir=Path(folder) / "one", offline=True)
        several = Settings(data_dir=Path(folder) / "several", offline=True, ray_workers=number)
        apart = EngineProcess(one)
        began = time.perf_counter()
        actors = RayEngines(several)
        first = time.perf_counter() - began
        while len(actors.actors) < number:
            time.sleep(_POLL_S)
        print(f"first actor there after {first:.1f} s, all {number} after {time.perf_counter() - began:.1f} s")
        with (
            open_services(one, engine=EngineHolder(lambda: apart)) as alone,
            open_services(several, engine=EngineHolder(lambda: actors)) as shared,
        ):
            for services in (alone, shared):
                services.generation.preload()
            turns = [(taken(alone), taken(shared)) for _ in range(TURNS)]
            for at, ((one_s, one_cpu), (all_s, all_cpu)) in enumerate(turns, start=1):
                print(f"| {at} | {one_s:.2f} | {all_s:.2f} | {one_s / all_s:.2f} | {one_cpu:.2f} | {all_cpu:.2f} |")
            usual = statistics.median(by_all[0] for _, by_all in turns)
            print(f"median ratio {statistics.median(by_one[0] / by_all[0] for by_one, by_all in turns):.2f}")
            took, away = with_a_kill(shared, actors)
            print(f"with a kill {took:.2f} s instead of {usual:.2f} s; the actor was away for {away:.1f} s")
        actors.close()
        apart.close()


if __name__ == "__main__":
    main()
