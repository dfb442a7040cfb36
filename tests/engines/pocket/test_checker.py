import numpy as np
import pytest
from PIL import Image, ImageDraw

from bench.checker_accuracy import CONDITIONS, foils
from engines.pocket.checker import SIZE_BANDS, SeenObject, Sighting, Verdict, compare, judge, see
from engines.pocket.sampling import MIXTURE, sample_scene
from engines.pocket.world import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene, Thing, layout, render

FIRST_SEED = 60_000_000
RED_CIRCLE = Thing(colour="red", shape="circle")
BLUE_STAR = Thing(colour="blue", shape="star")
PAIR = Scene(background="white", things=(RED_CIRCLE, BLUE_STAR), relation="left of")


def lone(shape: str = "circle", colour: str = "red", background: str = "white", **rest: object) -> Scene:
    return Scene(background=background, things=(Thing(colour=colour, shape=shape, **rest),))  # type: ignore[arg-type]


def seen(colour: str | None, shape: str | None, x: float = 0.5, y: float = 0.5) -> SeenObject:
    return SeenObject(colour=colour, shape=shape, x=x, y=y, area=0.1, radius=0.2, size="medium")


def sight(*objects: SeenObject, background: str | None = "white") -> Sighting:
    return Sighting(background=background, objects=objects)


def with_blob(scene: Scene, box: tuple[int, int, int, int], fill: tuple[int, int, int]) -> Image.Image:
    """A 128-pixel picture of `scene` with a rectangle that nobody asked for."""
    picture = render(scene, 0)
    ImageDraw.Draw(picture).rectangle(box, fill=fill)
    return picture


def accuracy(kind: str, condition: str, count: int, size: int = 128) -> float:
    right = 0
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, kind, held_out=bool(seed % 2))
        right += judge(CONDITIONS[condition](render(scene, seed, size), rng), scene).correct
    return right / count


@pytest.mark.parametrize("kind", MIXTURE)
def test_fresh_renders_are_judged_correct(kind: str) -> None:
    assert accuracy(kind, "clean", 100) >= 0.995


@pytest.mark.parametrize("kind", MIXTURE)
def test_noise_blur_and_jpeg_change_no_verdict(kind: str) -> None:
    assert accuracy(kind, "noise, blur, JPEG", 80) >= 0.98


@pytest.mark.parametrize("kind", MIXTURE)
def test_ringing_and_drift_change_hardly_a_verdict(kind: str) -> None:
    assert accuracy(kind, "ringing, drift", 60) >= 0.95


@pytest.mark.parametrize("kind", MIXTURE)
def test_most_pictures_keep_their_verdict_through_the_vae(kind: str) -> None:
    # The VAE is judged here, not the checker; the model card has the exact numbers.
    assert accuracy(kind, "VAE and back", 40) >= 0.95


@pytest.mark.parametrize("size", [64, 96, 256, 512])
def test_the_size_of_the_picture_does_not_matter(size: int) -> None:
    assert all(accuracy(kind, "clean", 10, size) == 1 for kind in MIXTURE)


@pytest.mark.parametrize("kind", MIXTURE)
def test_a_scene_that_differs_in_one_attribute_is_rejected_for_it(kind: str) -> None:
    for seed in range(FIRST_SEED, FIRST_SEED + 40):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, kind)
        sighting = see(render(scene, seed))
        for skill, foil in foils(scene, rng):
            verdict = compare(sighting, foil)
            assert not verdict.correct
            assert verdict.asked[skill] is False


@pytest.mark.parametrize("shape", SHAPES)
def test_position_and_radius_are_those_drawn(shape: str) -> None:
    placed, found = layout(lone(shape), 1)[0], see(render(lone(shape), 1)).objects[0]
    assert found.radius == pytest.approx(placed.radius, rel=0.03)
    # The centroid of a triangle lies below the centre of its frame, that of a heart above.
    assert np.hypot(found.x - placed.x, found.y - placed.y) < 0.23 * placed.radius


def test_the_size_bands_hold_the_sizes_drawn() -> None:
    assert all(SIZE_BANDS[size][0] < low < high < SIZE_BANDS[size][1] for size, (low, high) in SIZES.items())


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_blank_picture_shows_only_its_background(background: str) -> None:
    assert see(Image.new("RGB", (128, 128), BACKGROUNDS[background])) == sight(background=background)


def test_a_colour_off_the_palette_is_no_background() -> None:
    assert see(Image.new("RGB", (128, 128), (0, 128, 128))).background is None


def test_noise_shows_nothing_that_is_known() -> None:
    for seed in range(5):
        noise = np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8)
        sighting = see(Image.fromarray(noise))
        assert sighting.background is None
        assert not any(found.colour and found.shape for found in sighting.objects)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_gradient_shows_nothing_that_is_known(axis: int) -> None:
    ramp = np.broadcast_to(np.linspace(15, 250, 128)[:, None, None], (128, 128, 3)).astype(np.uint8)
    sighting = see(Image.fromarray(ramp if axis == 0 else ramp.transpose(1, 0, 2)))
    assert sighting.background is None
    assert not any(found.colour and found.shape for found in sighting.objects)


def test_random_blobs_have_no_shape() -> None:
    angles = np.linspace(0, 2 * np.pi, 90)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        reach = 32 + sum(5 * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(2, 6))
        picture = Image.new("RGB", (128, 128), BACKGROUNDS["white"])
        points = np.stack([64 + reach * np.cos(angles), 64 + reach * np.sin(angles)], axis=1)
        ImageDraw.Draw(picture).polygon([tuple(point) for point in points.tolist()], fill=COLOURS["blue"])
        assert [found.shape for found in see(picture).objects] == [None]


@pytest.mark.parametrize(
    "pair", [("circle", "square"), ("square", "diamond"), ("heart", "triangle"), ("star", "cross")]
)
def test_the_average_of_two_shapes_is_neither(pair: tuple[str, str]) -> None:
    blend = Image.blend(render(lone(pair[0]), 0), render(lone(pair[1]), 0), 0.5)
    assert all(found.shape is None or found.colour is None for found in see(blend).objects)


@pytest.mark.parametrize("turn", [45, 180])
def test_a_square_on_its_corner_and_a_triangle_on_its_head_have_no_name(turn: int) -> None:
    shape = "square" if turn == 45 else "triangle"
    picture = render(lone(shape), 0).rotate(turn, Image.Resampling.BICUBIC, fillcolor=BACKGROUNDS["white"])
    assert [found.shape for found in see(picture).objects] == [None]


def test_a_gray_object_has_no_colour() -> None:
    picture = Image.new("RGB", (128, 128), BACKGROUNDS["white"])
    ImageDraw.Draw(picture).ellipse((40, 40, 88, 88), fill=(120, 120, 120))
    assert [(found.colour, found.shape) for found in see(picture).objects] == [(None, "circle")]


def test_a_visible_extra_blob_spoils_a_picture() -> None:
    scene = lone(place="left")
    assert judge(render(scene, 0), scene).correct
    verdict = judge(with_blob(scene, (100, 100, 109, 109), (90, 90, 90)), scene)
    assert (verdict.presence, verdict.count, verdict.correct) == (True, False, False)


def test_a_speckle_is_overlooked() -> None:
    scene = lone(place="left")
    assert judge(with_blob(scene, (100, 100, 104, 104), (90, 90, 90)), scene).correct


def test_a_wide_faint_trace_leaves_the_background_unknown() -> None:
    scene = lone(place="left")
    assert see(with_blob(scene, (90, 90, 119, 119), (220, 220, 220))).background is None


def test_touching_objects_of_different_colours_are_told_apart() -> None:
    picture = Image.new("RGB", (128, 128), BACKGROUNDS["white"])
    draw = ImageDraw.Draw(picture)
    draw.rectangle((24, 44, 63, 83), fill=COLOURS["red"])
    draw.ellipse((64, 44, 104, 84), fill=COLOURS["blue"])
    assert {(found.colour, found.shape) for found in see(picture).objects} == {("red", "square"), ("blue", "circle")}


def test_a_pale_blob_that_touches_an_object_counts() -> None:
    scene = lone()
    placed = layout(scene, 0)[0]
    left, middle = int(128 * (placed.x + placed.radius)) - 4, int(128 * placed.y)
    assert not judge(with_blob(scene, (left, middle - 10, left + 20, middle + 10), (205, 190, 190)), scene).correct


def test_an_object_of_two_colours_is_not_the_one_asked() -> None:
    scene = lone("square")
    placed = layout(scene, 0)[0]
    half = (int(128 * placed.x), 0, 127, 127)
    picture = render(scene, 0)
    picture.paste(render(lone("square", colour="blue"), 0).crop(half), half)
    assert not judge(picture, scene).correct


def test_all_that_is_not_asked_is_none() -> None:
    verdict = judge(render(lone(), 0), lone())
    assert verdict == Verdict(presence=True, colour=True, shape=True, count=True, background=True)


def test_a_swap_of_colours_is_seen_as_wrong_binding() -> None:
    verdict = compare(sight(seen("blue", "circle", x=0.3), seen("red", "star", x=0.7)), PAIR)
    assert (verdict.presence, verdict.relation, verdict.count) == (False, False, True)


def test_an_extra_object_leaves_the_others_right() -> None:
    objects = (seen("red", "circle", x=0.2), seen("blue", "star", x=0.8), seen("green", "ring"))
    verdict = compare(sight(*objects), PAIR)
    assert verdict.asked == {
        "presence": True, "colour": True, "shape": True, "count": False, "background": True, "relation": True,
    }  # fmt: skip


def test_a_missing_copy_is_only_a_wrong_count() -> None:
    verdict = compare(sight(seen("red", "circle"), seen("red", "circle")), lone(count=3))
    assert verdict.asked == {"presence": True, "colour": True, "shape": True, "count": False, "background": True}


def test_what_is_unknown_is_never_right() -> None:
    verdict = compare(sight(seen(None, None), background=None), lone(place="left", size="large"))
    assert not any(verdict.asked.values())


def test_nothing_is_right_about_an_empty_picture_but_its_background() -> None:
    asked = compare(sight(), PAIR).asked
    assert asked.pop("background") is True
    assert not any(asked.values())


@pytest.mark.parametrize(
    ("x", "y", "right"), [(0.3, 0.5, True), (0.4, 0.5, False), (0.3, 0.75, False), (0.7, 0.5, False)]
)
def test_a_place_must_be_clear(x: float, y: float, right: bool) -> None:
    assert compare(sight(seen("red", "circle", x=x, y=y)), lone(place="left")).place is right


@pytest.mark.parametrize(
    ("x", "y", "right"), [(0.3, 0.5, True), (0.65, 0.5, False), (0.5, 0.9, False), (0.9, 0.5, False)]
)
def test_a_relation_must_be_clear(x: float, y: float, right: bool) -> None:
    assert compare(sight(seen("red", "circle", x=x, y=y), seen("blue", "star", x=0.7)), PAIR).relation is right
