"""Peaks between two looks are not missed, and an earlier peak is not counted again."""

import sys

import numpy as np
import pytest
import torch

from engines.memory import PeakMemory, release_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts for us")
def test_a_peak_between_two_looks_is_seen_and_then_forgotten() -> None:
    before = PeakMemory(CPU)
    quiet = before.megabytes()
    held = np.ones(60 * 2**20, dtype=np.uint8)
    assert held.sum() > 0
    del held
    peak = before.megabytes()
    assert peak > quiet + 40
    release_memory()
    assert PeakMemory(CPU).megabytes() < peak - 40


def test_where_nobody_counts_it_is_what_was_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.memory._reset_peak", lambda: False)
    peak = PeakMemory(CPU)
    peak.note()
    assert 10 < peak.megabytes() < 100_000
