"""One line at the end of a run that says what was tried on purpose and what came of it, whichever processes did so."""

from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

TIERS = {"not full and not long": "quick", "not long": "full", "": "long"}
"""What `-m` selects → what the selection is called."""


@dataclass
class Counted:
    """What was tried, and what became of it."""

    inputs: int = 0
    faults: int = 0
    survived: int = 0
    lost: int = 0
    remarks: list[str] = field(default_factory=list[str])


COUNTED = pytest.StashKey[Counted]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTED] = Counted()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counted = config.stash[COUNTED]
    if counted == Counted():
        return
    tier = TIERS.get(config.option.markexpr, "chosen")
    terminalreporter.write_line(
        f"Reliability, {tier}: {counted.inputs:,} inputs tried / {counted.faults:,} faults injected / "
        f"{counted.survived:,} survived / {counted.lost:,} lost"
    )
    for remark in counted.remarks:
        terminalreporter.write_line(f"Reliability, {tier}: {remark}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of a run that several processes share, each hands over what it counted."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["counted"] = asdict(session.config.stash[COUNTED])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """And it is put together."""
    total, counted = node.config.stash[COUNTED], getattr(node, "workeroutput", {}).get("counted", {})
    for name, value in counted.items():
        setattr(total, name, getattr(total, name) + value)
