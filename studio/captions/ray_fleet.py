"""The parts of a folder as a map of Ray Data, on as many machines as its cluster has. Ray is an extra
(requirements-ray.txt).

Each part is the same command that a process of `fleet` runs, and its shard is all that is remembered of it: a part
that is begun again, by Ray or by a person, passes over what has a caption. Machines must see the folder under the same
path, on a file system whose locks hold between them.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from studio.captions.fleet import MAX_RESTARTS, UNFINISHED
from studio.domain.captions import CaptioningStopped
from studio.domain.errors import NotFound
from studio.processes import child_environment
from studio.ray_cluster import join_cluster

_LOOK_S = 0.5
_SAID = 400
"""Characters of a complaint that are handed on."""


def run_ray(commands: Sequence[Sequence[str]], on_look: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """Run each of `commands`, the arguments after `python -m studio`, somewhere in the cluster that RAY_ADDRESS names,
    or else on this machine. `on_look` is called a few times a second. Gives how many did not do all of their part, and
    how many were begun again.

    Raises:
        CaptioningStopped: Ray is not here, or a part says that no more can be captioned.
    """
    ray = _started(len(commands))
    over = threading.Event()
    looker = threading.Thread(target=_look_until, args=(over, on_look), daemon=True)
    looker.start()
    try:
        parts = ray.data.from_items([{"command": list(command)} for command in commands])
        parts = parts.repartition(len(commands)).map(_run_part, concurrency=len(commands), num_cpus=1)
        rows: list[dict[str, Any]] = parts.take_all()
    finally:
        over.set()
        looker.join()
        ray.shutdown()
    on_look()
    stopped = next((row for row in rows if row["code"] not in (0, UNFINISHED)), None)
    if stopped is not None:
        raise CaptioningStopped(str(stopped["complaint"]))
    return sum(row["code"] == UNFINISHED for row in rows), sum(int(row["restarts"]) for row in rows)


def _started(num_parts: int) -> Any:
    try:
        ray = join_cluster(os.environ.get("RAY_ADDRESS", ""), max(num_parts, 2), "data")
    except NotFound as error:
        raise CaptioningStopped(error.message, error.hint) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray


def _run_part(row: dict[str, Any]) -> dict[str, Any]:
    """What a worker does: its part in a process of ours, begun again as often as it is killed."""
    command = [sys.executable, "-m", "studio", *map(str, row["command"])]
    for restarts in range(MAX_RESTARTS + 1):
        done = subprocess.run(
            command, env=child_environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        if done.returncode >= 0:
            said = lines[-1].removeprefix("error: ")[:_SAID] if lines else ""
            return {"code": done.returncode, "complaint": said, "restarts": restarts}
    return {"code": 1, "complaint": "It was killed again and again.", "restarts": MAX_RESTARTS}


def _look_until(over: threading.Event, on_look: Callable[[], None]) -> None:
    while not over.wait(_LOOK_S):
        on_look()
