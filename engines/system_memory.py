"""How much of the computer's memory is free. No torch."""

from collections.abc import Iterator
from pathlib import Path

import psutil


def system_free_bytes() -> int:
    """What the system or a container's limit leaves."""
    return min([psutil.virtual_memory().available, *_container_rooms()])


def _container_rooms(groups: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What the memory limits of a container leave; what its files take in memory can be dropped and counts as free."""
    limit, used, details = groups / "memory.max", groups / "memory.current", groups / "memory.stat"
    try:
        most = limit.read_text().strip()
        if most != "max":
            lines = (line.split() for line in details.read_text().splitlines())
            files = next((int(value) for name, value in lines if name == "inactive_file"), 0)
            yield int(most) - int(used.read_text()) + files
    except (OSError, ValueError):  # no container, or one of another kind
        return
