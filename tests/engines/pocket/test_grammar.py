import numpy as np
import pytest

from engines.pocket.grammar import caption, paraphrase, parse, unknown_words, vocabulary
from engines.pocket.sampling import MIXTURE, sample_scene
from engines.pocket.world import Scene, Thing

RED_CIRCLE = Thing(colour="red", shape="circle")
BLUE_STAR = Thing(colour="blue", shape="star")


def paraphrases(count: int) -> list[tuple[Scene, str]]:
    pairs = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng)
        pairs.append((scene, paraphrase(scene, rng)))
    return pairs


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (Scene(background="white", things=(RED_CIRCLE,)), "a red circle on a white background"),
        (
            Scene(background="navy", things=(Thing(colour="orange", shape="cross", size="large"),)),
            "a large orange cross on a navy background",
        ),
        (
            Scene(background="mint", things=(Thing(colour="pink", shape="cross", count=3),)),
            "three pink crosses on a mint background",
        ),
        (
            Scene(background="gray", things=(Thing(colour="red", shape="ring", place="top"),)),
            "a red ring at the top on a gray background",
        ),
        (
            Scene(background="cream", things=(RED_CIRCLE, BLUE_STAR), relation="above"),
            "a red circle above a blue star on a cream background",
        ),
        (
            Scene(background="black", things=(RED_CIRCLE, BLUE_STAR)),
            "a red circle and a blue star on a black background",
        ),
    ],
)
def test_a_caption_says_the_scene(scene: Scene, words: str) -> None:
    assert caption(scene) == words


@pytest.mark.parametrize("kind", MIXTURE)
def test_a_caption_reads_back_as_its_scene(kind: str) -> None:
    for seed in range(200):
        scene = sample_scene(np.random.default_rng(seed), kind, held_out=bool(seed % 2))
        assert parse(caption(scene)) == scene


def test_a_paraphrase_is_never_read_as_another_scene() -> None:
    assert all(parse(words) in (scene, None) for scene, words in paraphrases(1500))


def test_most_paraphrases_are_understood() -> None:
    pairs = paraphrases(1500)
    assert sum(parse(words) == scene for scene, words in pairs) > 0.85 * len(pairs)


def test_paraphrases_vary() -> None:
    scene = Scene(background="white", things=(RED_CIRCLE, BLUE_STAR), relation="left of")
    rng = np.random.default_rng(0)
    assert len({paraphrase(scene, rng) for _ in range(100)}) > 30


def test_a_paraphrase_repeats_with_its_seed() -> None:
    scene = Scene(background="white", things=(RED_CIRCLE,))
    assert paraphrase(scene, np.random.default_rng(4)) == paraphrase(scene, np.random.default_rng(4))


def test_every_paraphrase_keeps_to_the_vocabulary() -> None:
    assert {word for _, words in paraphrases(1500) for word in unknown_words(words)} == set()


def test_the_vocabulary_is_lower_case_single_words() -> None:
    assert all(word == word.lower() and " " not in word for word in vocabulary())


def test_unknown_words_come_once_and_in_order() -> None:
    assert unknown_words("A shiny red Dragon, a shiny circle!") == ("shiny", "dragon")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "a cat",
        "a red circle",
        "circles on a white background",
        "a red circles on a white background",
        "a red blue circle on a white background",
        "a white circle on a white background",
    ],
)
def test_what_is_no_full_scene_is_not_parsed(words: str) -> None:
    assert parse(words) is None


def test_case_punctuation_and_british_gray_do_not_matter() -> None:
    scene = Scene(background="gray", things=(RED_CIRCLE,))
    assert parse("A red circle, on a GREY background.") == scene


def test_order_of_words_sets_who_is_where() -> None:
    scene = parse("a blue star to the right of a red circle on white")
    assert scene == Scene(background="white", things=(BLUE_STAR, RED_CIRCLE), relation="right of")
