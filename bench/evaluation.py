"""Measure the judge, the checker and the statistics: `python bench/evaluation.py`.

How well the CLIP score of pictures follows the checker, what scoring takes, and how often equal systems are told apart.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import pointbiserialr, spearmanr

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engines.judge_exam import auroc  # noqa: E402
from studio.evaluation_export import read_document  # noqa: E402
from studio.evaluation_scores import analyse  # noqa: E402
from studio.judge_exams import exam_words  # noqa: E402
from studio.paired import compare  # noqa: E402
from studio.services import open_services  # noqa: E402
from studio.settings import Settings  # noqa: E402
from studio.statistics import mean_share_difference  # noqa: E402


def main() -> None:
    """Print one table for each question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, nargs="*", default=[], help="results.json files with pictures beside")
    parser.add_argument("--rounds", type=int, default=2000)
    options = parser.parse_args()
    for path in options.results:
        correlation(path)
    if options.results:
        speed(options.results[0])
    simulation(options.rounds)


def correlation(path: Path) -> None:
    """Of pictures: the score of those that are right against the others; of systems: means against means."""
    findings = read_document(path)
    evaluation, results = findings.evaluation, findings.results
    told = [each for each in results.values() if each.right is not None and each.cosine is not None]
    right, score = np.array([each.right for each in told], float), np.array([each.cosine for each in told], float)
    print(f"\n{evaluation.name}: {len(told)} pictures, {right.mean():.1%} right")
    if 0 < right.mean() < 1:
        print(f"  picture by picture: point-biserial {pointbiserialr(right, score).statistic:.3f}, ", end="")
        print(f"AUROC {auroc(list(score[right == 1]), list(score[right == 0])):.3f}, ", end="")
        print(f"right {100 * score[right == 1].mean():.1f}, wrong {100 * score[right == 0].mean():.1f}")
    analysis = analyse(evaluation, results)
    means = [(each.means["right"].value, each.means["clip"].value) for each in analysis.systems]
    if len(means) > 2:
        rank = spearmanr([each for each, _ in means], [each for _, each in means]).statistic
        print(f"  {len(means)} systems: Spearman {rank:.3f}")


def speed(path: Path) -> None:
    """Seconds for 1 000 scored pictures, and for 1 000 checked ones."""
    from engines.pocket.checker import judge
    from engines.pocket.grammar import parse
    from studio.evaluation_export import picture_name
    from studio.gallery import opened

    evaluation = read_document(path).evaluation
    cells = [(path.parent / picture_name(cell, evaluation), cell.text) for cell in evaluation.cells]
    cells = [(place, text) for place, text in cells if place.is_file()][:200]
    with open_services(Settings.from_environment(), queue="bench") as services:
        folder = services.scoring.folder_of("pocket-clip")
        services.scoring.score_file(folder, *cells[0])
        started = time.perf_counter()
        for place, text in cells:
            services.scoring.score_file(folder, place, text)
        scored = time.perf_counter() - started
        exam = services.judge_exams.known("pocket-clip")
    started = time.perf_counter()
    for place, text in cells:
        if (scene := parse(text)) is not None:
            judge(opened(place), scene)
    checked = time.perf_counter() - started
    count = len(cells)
    print(f"\n1 000 pictures ({count} measured): scored in {1000 * scored / count:.1f} s, ", end="")
    print(f"checked in {1000 * checked / count:.1f} s")
    print(f"  {exam_words(exam)}" if exam else "")


def simulation(rounds: int) -> None:
    """Two equal systems that draw the same prompts, some harder: how often one is called better or worse."""
    rng = np.random.default_rng(20_261_129)
    print("\nequal systems told apart (nominal 5 %), and the interval of the difference holds 0")
    for prompts, pictures in ((8, 1), (34, 2), (128, 2)):
        for chance in (0.95, 0.7):
            apart, held = 0, []
            for _ in range(rounds):
                easy = rng.beta(8 * chance, 8 * (1 - chance), prompts)
                drawn = [rng.binomial(pictures, easy) / pictures for _ in range(2)]
                told = compare(list(100 * (drawn[1] - drawn[0])), 0.0, lambda each: mean_share_difference(each, 100.0))
                apart += told.verdict in ("better", "worse")
                low, high = told.difference.low, told.difference.high
                held.append(low is not None and high is not None and low <= 0 <= high)
            print(f"  {prompts} × {pictures}, {chance:.0%} right: {apart / rounds:.1%}, {fmean(held):.1%}")


if __name__ == "__main__":
    main()
