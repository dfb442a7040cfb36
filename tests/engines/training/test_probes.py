"""What a pocket model is tested with while it learns."""

from pathlib import Path

import pytest

from engines.pocket.album import mounted
from engines.pocket.world import render
from engines.training.probes import is_album, probes_for
from studio.settings import PROJECT_ROOT

EXAMPLES = PROJECT_ROOT / "examples"


def pictures(name: str) -> list[Path]:
    return sorted((EXAMPLES / name).glob("*.png"))


def test_a_style_is_seen_in_its_pictures() -> None:
    assert is_album(pictures("album")) and not is_album(pictures("crescents"))
    assert not is_album([*pictures("album")[:3], pictures("crescents")[0]])


def test_a_new_shape_is_tested_beside_what_was_known() -> None:
    probes = probes_for(["a red sks on a white background"], "", is_album=False)
    assert {"sks" in each.prompt for each in probes} == {True, False}
    for each in probes:
        picture = render(each.scene, 3)
        assert each.is_right(picture) and not each.is_right(mounted(picture))


def test_a_style_without_a_word_is_wanted_everywhere() -> None:
    for each in probes_for(["a red star on a white background"], "", is_album=True):
        picture = render(each.scene, 3)
        assert each.is_right(mounted(picture)) and not each.is_right(picture)


def test_a_style_with_a_word_comes_with_it_and_stays_away_without() -> None:
    probes = probes_for([], "album", is_album=True)
    assert {each.prompt.startswith("album, ") for each in probes} == {True, False}
    for each in probes:
        assert each.is_mounted == each.prompt.startswith("album, ")
        picture = render(each.scene, 3)
        assert each.is_right(mounted(picture)) == each.is_mounted and each.is_right(picture) != each.is_mounted


@pytest.mark.parametrize("is_mounted", [False, True])
def test_no_prompt_is_tested_twice(is_mounted: bool) -> None:
    prompts = [each.prompt for each in probes_for(["sks"], "", is_album=is_mounted)]
    assert len(prompts) == len(set(prompts)) > 15
