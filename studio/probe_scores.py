"""What a probe says: the share of each value, whether the shares differ from what was expected, and how far the judge
is right where that can be told."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import Literal

from scipy.stats import binomtest, chisquare

from engines.pocket.grammar import backgrounds_named
from studio.domain.cells import CellResult
from studio.domain.probe import Answer, Attribute, Probe
from studio.paired import holm
from studio.statistics import Estimate, share

LEAST_PICTURES, LEAST_EXPECTED = 20, 5
"""With fewer pictures, or fewer expected of one value, shares are not tested (Cochran, 1954)."""
_MOST_CONFUSED = 3


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Whether shares differ from the expected ones by more than chance. `p_value` is that of Pearson's chi-square test
    (1900), or of the exact binomial test where there are two values; `adjusted` is that after Holm, over the attributes
    of a probe. `effect` is Cohen's w (1988), from 0: 0.1 is small, 0.3 medium, 0.5 large."""

    test: Literal["chi-square", "binomial"]
    p_value: float
    adjusted: float
    effect: float


@dataclass(frozen=True, kw_only=True)
class ValueShare:
    """How many pictures show a value by the judge, of all that were judged (`share`, with Wilson's interval), and by
    the checker (`seen`, of all that it looked at; None where it does not look)."""

    name: str
    text: str
    count: int
    share: Estimate
    expected: float
    seen: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class AttributeResult:
    """One attribute over all pictures. `unsure`: the share whose best two values are nearly equal. `balance` is None of
    too few pictures. `agreement`: how often the judge says what the checker sees, of the pictures in which that sees
    one of the values; in `unclear` others it sees none. `confusions`: what the checker sees, what the judge takes it
    for, and how often. `named`: values that the prompt itself asks for."""

    attribute: Attribute
    values: tuple[ValueShare, ...]
    n: int
    unsure: Estimate
    balance: Balance | None
    agreement: Estimate | None = None
    unclear: int = 0
    confusions: tuple[tuple[str, str, int], ...] = ()
    named: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """All attributes of a probe, in order; none while no picture is judged. `judge` is its whole id, `remark` what
    makes it doubtful; `truncated` counts pictures of which it did not read a text whole."""

    probe: Probe
    drawn: int
    failed: int
    judged: int
    truncated: int
    judge: str
    remark: str
    attributes: tuple[AttributeResult, ...]


def analyse(
    probe: Probe, results: Mapping[int, CellResult], answers: Mapping[int, Answer], remark: str = ""
) -> ProbeResult:
    """What follows from the pictures so far; `answers` that do not fit `probe` are left out."""
    told = [answer for answer in answers.values() if answer.fits(probe)]
    attributes = [_attribute(each, probe, told) for each in probe.attributes] if told else []
    return ProbeResult(
        probe=probe,
        drawn=sum(bool(result.image_id) for result in results.values()),
        failed=sum(not result.image_id for result in results.values()),
        judged=len(told),
        truncated=sum(answer.is_truncated for answer in told),
        judge=told[0].judge if told else "",
        remark=remark,
        attributes=_corrected(attributes),
    )


def balance(counts: Sequence[int], expected: Sequence[float]) -> Balance | None:
    """Test `counts` of at least two values against the `expected` shares, which are above 0 and add up to 1; None where
    there are too few: see `pictures_needed`."""
    n = sum(counts)
    if n < pictures_needed(expected):
        return None
    if len(counts) == 2:
        p_value = float(binomtest(counts[0], n, expected[0]).pvalue)
    else:
        p_value = float(chisquare(counts, [n * each for each in expected]).pvalue)
    effect = sqrt(sum((count / n - each) ** 2 / each for count, each in zip(counts, expected, strict=True)))
    test = "binomial" if len(counts) == 2 else "chi-square"
    return Balance(test=test, p_value=p_value, adjusted=p_value, effect=effect)


def pictures_needed(expected: Sequence[float]) -> int:
    """From how many pictures on shares are tested: `LEAST_PICTURES`, and `LEAST_EXPECTED` of the rarest value."""
    return max(LEAST_PICTURES, ceil(round(LEAST_EXPECTED / min(expected), 9)))


def chosen(answer: Answer, attribute: Attribute) -> str:
    """The value whose text fits best; of equal ones the first."""
    cosines = answer.cosines[attribute.name]
    return attribute.values[max(range(len(cosines)), key=cosines.__getitem__)].name


def is_unsure(answer: Answer, attribute: Attribute, margin: float) -> bool:
    """Whether the best value leads the next one by less than `margin` points (cosine × 100)."""
    second, best = sorted(answer.cosines[attribute.name])[-2:]
    return 100 * (best - second) < margin


def named_in(prompt: str, attribute: Attribute) -> tuple[str, ...]:
    """The values that a prompt asks for in so many words. The colour of a background is no thing's colour."""
    if attribute.checked == "background":
        asked = backgrounds_named(prompt)
        return tuple(value.name for value in attribute.values if value.name in asked)
    rest = re.sub(r"\b\w+ background\b", " ", prompt.lower())
    names = [value.name for value in attribute.values]
    return tuple(name for name in names if re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", rest))


def _attribute(attribute: Attribute, probe: Probe, answers: Sequence[Answer]) -> AttributeResult:
    n = len(answers)
    picked = [chosen(answer, attribute) for answer in answers]
    counts = Counter(picked)
    seen = [answer.seen.get(attribute.name) for answer in answers]
    is_looked_at = all(attribute.name in answer.seen for answer in answers)
    names = {value.name for value in attribute.values}
    values = tuple(
        ValueShare(
            name=value.name,
            text=value.text,
            count=counts[value.name],
            share=share(counts[value.name], n),
            expected=expected,
            seen=share(seen.count(value.name), n) if is_looked_at else None,
        )
        for value, expected in zip(attribute.values, attribute.expected, strict=True)
    )
    pairs = [(truth, said) for truth, said in zip(seen, picked, strict=True) if truth is not None and truth in names]
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1]).most_common(_MOST_CONFUSED)
    return AttributeResult(
        attribute=attribute,
        values=values,
        n=n,
        unsure=share(sum(is_unsure(answer, attribute, probe.margin) for answer in answers), n),
        balance=balance([value.count for value in values], attribute.expected),
        agreement=share(sum(truth == said for truth, said in pairs), len(pairs)) if pairs else None,
        unclear=n - len(pairs) if is_looked_at else 0,
        confusions=tuple((truth, said, count) for (truth, said), count in wrong),
        named=named_in(probe.words, attribute),
    )


def _corrected(attributes: Sequence[AttributeResult]) -> tuple[AttributeResult, ...]:
    """The same with the p-values corrected for how many there are. What the prompt itself asks for is no question."""
    tested = [each for each in attributes if each.balance and not each.named]
    adjusted = iter(holm([each.balance.p_value for each in tested if each.balance]))
    found: list[AttributeResult] = []
    for each in attributes:
        if each.balance and not each.named:
            each = replace(each, balance=replace(each.balance, adjusted=next(adjusted)))
        found.append(each)
    return tuple(found)
