"""What was asked for money is kept even if the process that asked is killed: another one does the asking.

A program that is killed cannot keep the answer that is under way, though it is paid. So the work is done by a child,
which notices when its parent is gone, takes what is under way to its end, and ends.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType


def outlive(on_orphaned: Callable[[], None]) -> int | None:
    """Part in two. In the child, which is to go on, this gives None; there SIGTERM comes when the parent is gone, after
    `on_orphaned` was called. In the parent it gives the child's exit code, once that has ended; what ends the parent
    gently is handed on. Where a process cannot be parted there is only one, which goes on.
    """
    if not sys.platform.startswith("linux") or threading.active_count() > 1:  # a fork takes one thread along
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(reading)
        return _waited_for(child)
    os.close(writing)
    os.setsid()  # Ctrl+C is the parent's, which hands it on
    threading.Thread(target=_watch, args=(reading, on_orphaned), name="parent", daemon=True).start()
    return None


def _watch(reading: int, on_orphaned: Callable[[], None]) -> None:
    os.read(reading, 1)  # nothing is ever written: it ends when the other end is closed
    on_orphaned()
    os.kill(os.getpid(), signal.SIGTERM)


def _waited_for(child: int) -> int:
    def hand_on(number: int, frame: FrameType | None) -> None:
        os.kill(child, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hand_on)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # killed, and so are we, that whoever began us sees it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
