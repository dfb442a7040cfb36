"""What is said about a prompt before it is drawn."""

import pytest

from studio.domain.catalogue import Catalogue
from studio.prompts import prompt_remarks, unlearnt
from studio.services import CATALOGUE_PATH

CATALOGUE = Catalogue.load(CATALOGUE_PATH)


def about(prompt: str, style: str = "none", checkpoint: str = "pocket-sd15") -> str:
    return " ".join(prompt_remarks(CATALOGUE.checkpoint(checkpoint), CATALOGUE.style(style), prompt))


def test_unlearnt_words_are_listed() -> None:
    assert unlearnt((), "Pocket") == ""
    assert unlearnt(("cat", "hat"), "Pocket") == ("Pocket never learnt “cat”, “hat”, so the picture may ignore them.")
    assert about("a shiny red circle") == "Pocket SD 1.5 never learnt “shiny”, so the picture may ignore it."
    assert about("a colored star next beside a circle").count("“") == 3


@pytest.mark.parametrize("prompt", ["a red circle on navy", "on a grey background, a star", "a star, mint background"])
def test_a_second_background_from_a_style_is_pointed_out(prompt: str) -> None:
    assert about(prompt) == ""
    assert "second background" in about(prompt, "on_cream")


def test_a_style_that_says_what_the_prompt_says_is_fine() -> None:
    assert about("a red circle on a cream background", "on_cream") == ""
    assert about("a white circle above a black star", "on_cream") == ""
    assert about("a red star with a white ring", "on_cream") == ""


def test_nothing_is_said_about_models_whose_words_nobody_can_list() -> None:
    assert about("a shiny dragon", checkpoint="sd15") == ""
