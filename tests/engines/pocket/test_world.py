import numpy as np
import pytest
from scipy import ndimage

from engines.pocket.sampling import MIXTURE, sample_scene
from engines.pocket.world import BACKGROUNDS, COLOURS, PLACES, RELATIONS, SHAPES, SIZES, Scene, Thing, layout, outline
from engines.pocket.world import render as draw


def scene_of(kind: str, seed: int) -> Scene:
    return sample_scene(np.random.default_rng(seed), kind)


def lone(shape: str = "circle", **rest: object) -> Scene:
    return Scene(background="white", things=(Thing(colour="red", shape=shape, **rest),))  # type: ignore[arg-type]


def drawn(scene: Scene, seed: int) -> np.ndarray:
    """Which pixels differ from the background, `(128, 128)`."""
    return (np.asarray(draw(scene, seed)) != BACKGROUNDS[scene.background]).any(axis=2)


def test_the_same_seed_draws_the_same_pixels() -> None:
    assert draw(scene_of("pair", 3), 7).tobytes() == draw(scene_of("pair", 3), 7).tobytes()


def test_another_seed_draws_other_pixels() -> None:
    assert draw(scene_of("pair", 3), 7).tobytes() != draw(scene_of("pair", 3), 8).tobytes()


@pytest.mark.parametrize("size", [64, 128, 512])
def test_pictures_are_rgb_squares_of_the_asked_size(size: int) -> None:
    picture = draw(lone(), 0, size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_a_picture_looks_the_same_at_every_size() -> None:
    scene = scene_of("pair", 5)
    small, large = (np.asarray(draw(scene, 1, size).resize((64, 64)), dtype=float) for size in (128, 256))
    assert np.abs(small - large).mean() < 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_picture_holds_its_two_colours_exactly(shape: str) -> None:
    colours = {tuple(pixel) for pixel in np.asarray(draw(lone(shape), 0)).reshape(-1, 3).tolist()}
    assert {COLOURS["red"], BACKGROUNDS["white"]} <= colours


@pytest.mark.parametrize("kind", MIXTURE)
def test_objects_never_touch_each_other_or_the_border(kind: str) -> None:
    for seed in range(60):
        scene = scene_of(kind, seed)
        mask = drawn(scene, seed)
        labels = np.asarray(ndimage.label(mask, np.ones((3, 3)))[0])  # type: ignore[index]
        assert labels.max() == len(layout(scene, seed))
        assert not (mask[0] | mask[-1] | mask[:, 0] | mask[:, -1]).any()


@pytest.mark.parametrize("kind", MIXTURE)
def test_a_scene_knows_its_kind(kind: str) -> None:
    assert scene_of(kind, 0).kind == kind


@pytest.mark.parametrize("count", [2, 3])
def test_as_many_objects_are_placed_as_asked(count: int) -> None:
    assert len(layout(lone(count=count), 0)) == count


@pytest.mark.parametrize("size", SIZES)
def test_a_size_word_sets_the_radius(size: str) -> None:
    low, high = SIZES[size]
    assert all(low <= layout(lone(size=size), seed)[0].radius <= high for seed in range(50))


@pytest.mark.parametrize("place", PLACES)
def test_a_placed_object_stays_near_its_place(place: str) -> None:
    for seed in range(50):
        placed = layout(lone(place=place), seed)[0]
        assert np.hypot(placed.x - PLACES[place][0], placed.y - PLACES[place][1]) < 0.06


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_relation_sets_where_the_first_object_stands(relation: str) -> None:
    things = (Thing(colour="red", shape="star"), Thing(colour="blue", shape="ring"))
    scene = Scene(background="white", things=things, relation=relation)
    dx, dy = RELATIONS[relation]
    for seed in range(50):
        first, second = layout(scene, seed)
        assert (first.colour, second.colour) == ("red", "blue")
        assert (first.x - second.x) * dx + (first.y - second.y) * dy > 0.3


def test_a_ring_shows_the_background_through_its_hole() -> None:
    placed = layout(lone("ring"), 0)[0]
    picture = draw(lone("ring"), 0)
    assert picture.getpixel((int(placed.x * 128), int(placed.y * 128))) == BACKGROUNDS["white"]


def test_an_outline_is_a_copy() -> None:
    outline("square").clear()
    assert len(outline("square")) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "teal"}, "unknown colour 'teal'"),
        ({"shape": "blob"}, "unknown shape 'blob'"),
        ({"size": "vast"}, "unknown size 'vast'"),
        ({"place": "centre"}, "unknown place 'centre'"),
        ({"colour": "white"}, "cannot be seen"),
    ],
)
def test_a_scene_that_cannot_be_drawn_is_refused(change: dict[str, str], message: str) -> None:
    words = {"colour": "red", "shape": "circle", **change}
    with pytest.raises(ValueError, match=message):
        Scene(background="white", things=(Thing(**words),))  # type: ignore[arg-type]


def test_a_scene_without_things_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or 2 things"):
        Scene(background="white", things=())
