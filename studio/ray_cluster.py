"""Ray, an extra (requirements-ray.txt): imported where it is asked for, and connected to a cluster."""

import ctypes
import logging
import os
import secrets
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from studio.domain.errors import NotFound
from studio.processes import child_environment

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_STORE_BYTES = 200 * 2**20
"""What a cluster of our own keeps for pictures that travel; Ray takes a third of the memory otherwise."""
_MOST_ACTION_BYTES = 1024
"""More than C's `struct sigaction` has anywhere."""
_USUAL = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Read by Ray when it is imported; the last saves a warning where there is no GPU. Who says otherwise has a reason."""
_ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Whether Ray takes an address that other machines reach. Whatever its name says it holds on Linux too, where Ray would
listen on all of them otherwise, even for a cluster that is on 127.0.0.1."""


def check_ray() -> None:
    """Raises NotFound where Ray is not installed; imports nothing."""
    if find_spec("ray") is None:
        raise _missing()


def is_joined() -> bool:
    """Whether this process is in a cluster."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def join_cluster(address: str, num_cpus: int, *modules: str) -> Any:
    """Ray, with those of its `modules` that are needed, and this process in the cluster at `address`, which asks for
    its token; or with "" in one of its own that offers `num_cpus`: on this machine alone, without a dashboard, and with
    a token that nobody else has. A cluster that the process is in already stays.

    Raises:
        NotFound: Ray is not installed here, or the cluster cannot be joined.
    """
    for name, value in _USUAL.items():
        os.environ.setdefault(name, value)
    if not address:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ[_ALONE] = "0"
        os.environ["PYTHONPATH"] = child_environment()["PYTHONPATH"]  # for the workers, wherever this was started
    ray = _imported(modules)
    if not ray.is_initialized():
        try:
            with _stop_kept():
                ray.init(**_connection(address, num_cpus), log_to_driver=False)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            logger.warning("no cluster of Ray could be joined: %s", error)
            raise NotFound(
                "The cluster of Ray cannot be joined; the log says why.",
                "Look at its address, and whether RAY_AUTH_TOKEN is its token.",
            ) from None
    return ray


@contextmanager
def _stop_kept() -> Generator[None]:
    """Ray takes SIGTERM for a crash, and puts a handler of its own in place of the one that ends the studio in peace;
    here that one is put back. Python itself does so from its main thread alone, and not for what it did not see."""
    if sys.platform == "win32":
        yield
        return
    act = ctypes.CDLL(None).sigaction
    kept = ctypes.create_string_buffer(_MOST_ACTION_BYTES)
    act(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        act(signal.SIGTERM, kept, None)


def _imported(modules: tuple[str, ...]) -> Any:
    try:
        ray: Any = import_module("ray")
        for module in modules:
            import_module(f"ray.{module}")
    except ImportError:
        raise _missing() from None
    return ray


def _missing() -> NotFound:
    return NotFound("Ray is not installed here.", "Run pip install -r requirements-ray.txt, or do without it.")


def _connection(address: str, num_cpus: int) -> dict[str, Any]:
    if address:
        return {"address": address}
    return {
        "address": "local",
        "num_cpus": num_cpus,
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "_node_ip_address": LOOPBACK,
    }
