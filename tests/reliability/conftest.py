"""Faults on purpose, and one line at the end that says what came of them.

Everything is seeded: a test that fails prints what it takes to see the same again. `full` and `long` tests are left out
unless they are asked for; see docs/reliability.md.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext

import pytest

from studio.settings import PROJECT_ROOT
from tests.reliability.counting import COUNTED

Score = Callable[..., None]


@pytest.fixture
def score(pytestconfig: pytest.Config) -> Score:
    """Adds to the line at the end: `score(inputs=1000)`, `score(faults=1, survived=1)`, `score(lost=2)`."""
    counted = pytestconfig.stash[COUNTED]

    def add(**numbers: int) -> None:
        for name, number in numbers.items():
            setattr(counted, name, getattr(counted, name) + number)

    return add


@pytest.fixture
def remark(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Adds a line of its own at the end, for what is measured and not demanded."""
    return pytestconfig.stash[COUNTED].remarks.append


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServerContext]:
    """Processes that have imported torch already: a thousand of them cost what one costs otherwise."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engines.stable_diffusion", "tests.reliability.drawing"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PROJECT_ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        first = context.Process(target=int)
        first.start()
        first.join()
    yield context
