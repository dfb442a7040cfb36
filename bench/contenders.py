"""Contenders of a measurement, a process each, that take turns: one works at a time, and all meet the machine in the
same moods. A contender answers every seed that it is sent with one line of JSON."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

WARM_UP = 2


def take_turns(
    script: str, contenders: Sequence[str], arguments: Sequence[str], turns: int, warm_up: int = WARM_UP
) -> dict[str, list[Any]]:
    """The answers of every contender, turn by turn; `script --contender NAME` is one."""
    processes = {
        name: subprocess.Popen(
            [sys.executable, script, "--contender", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for name in contenders
    }
    try:
        answers = [
            {name: _answer(process, seed) for name, process in processes.items()} for seed in range(turns + warm_up)
        ]
    finally:
        for process in processes.values():
            process.kill()
    return {name: [turn[name] for turn in answers[warm_up:]] for name in processes}


def serve(answer: Callable[[int], object]) -> None:
    """Be a contender: answer every seed that comes in."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(answer(int(line))), file=answers, flush=True)


def ratio_words(values: Sequence[float], base: Sequence[float]) -> str:
    """The median of the ratios turn by turn, with its bootstrap interval at 95 %; of a single turn, the ratio alone."""
    ratios = np.array(values) / np.array(base)
    if len(ratios) < 3 or np.ptp(ratios) == 0:
        return f"{np.median(ratios):.3f}"
    interval = bootstrap((ratios,), np.median, method="percentile", rng=0).confidence_interval
    return f"{np.median(ratios):.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _answer(process: "subprocess.Popen[str]", seed: int) -> Any:
    assert process.stdin and process.stdout
    print(seed, file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("A contender died; its own words are above.")
    return json.loads(answer)
