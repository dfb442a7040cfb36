"""Pictures to begin from, as Gradio's own client sends them: drawn over as our own API does, and nobody else's."""

import base64
import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from engines.pocket.world import render
from studio.gallery import opened
from studio.web.access import new_token
from tests.tabs.pages import PASSWORD, PATIENCE_S, Page
from tests.watched_names import watched_names

# Gradio asks pandas for options that pandas 3 deprecates, and does not get to its end where that is an error.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.future.no_silent_downcasting:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated:DeprecationWarning"),
]

BEFORE, AFTER = "a large red circle on a white background", "a large blue circle on a white background"
QUICK = {"prompt": AFTER, "num_inference_steps": 6, "seed": 7}
NOT_SENT = "The picture is no file that you sent. Send the file itself."
NOWHERE = "This is no file that was sent here. Send the file itself."
NOT_FETCHED = "A file at an address is not fetched. Send the file itself."
NOT_YOURS = "The picture is no file that you sent. Send the file itself, with the same X-Flash-Visitor."


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, a mask of its right half, and what is no picture."""
    folder = tmp_path_factory.mktemp("files")
    scene = parse(BEFORE)
    assert scene is not None
    render(scene, seed=3).save(folder / "scene.png")
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    mask.save(folder / "mask.png")
    (folder / "text.png").write_text("no picture at all")
    (folder / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (folder / "nothing.png").write_bytes(b"")
    (folder / "half.png").write_bytes((folder / "scene.png").read_bytes()[:200])
    moves = [Image.new("L", (16, 16), grey) for grey in (0, 255)]
    moves[0].save(folder / "moves.gif", save_all=True, append_images=moves[1:])
    Image.new("1", (10_000, 5_001)).save(folder / "vast.png")
    Image.new("L", (128, 128)).save(folder / "black.png")
    return folder


def somebody() -> dict[str, str]:
    return {"Authorization": f"Bearer {PASSWORD}", "X-Flash-Visitor": new_token()}


def pixels(path: str | Path) -> bytes:
    return opened(Path(path)).tobytes()


def drawn_by_json(page: Page, values: dict[str, Any], headers: dict[str, str]) -> bytes:
    """The pixels of a picture that our own API draws for somebody else, so that it is drawn anew."""
    with httpx.Client(base_url=f"{page.url}api/v1", headers=headers, timeout=60) as api:
        job_id = api.post("/jobs", json={"kind": "generate", **values}).json()["id"]
        deadline = time.monotonic() + PATIENCE_S
        while (answer := api.get(f"/jobs/{job_id}/result")).status_code == 409:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    return pixels(page.services.gallery.path(page.services.gallery.image(answer.json()["pictures"][0]["id"])))


def sent(page: Page, path: Path, headers: dict[str, str]) -> str:
    """Where Gradio keeps `path` once it was uploaded."""
    with path.open("rb") as file:
        answer = httpx.post(f"{page.url}gradio_api/upload", files={"files": file}, headers=headers, timeout=60)
    return str(answer.raise_for_status().json()[0])


def said(page: Page, values: list[Any], headers: dict[str, str]) -> str:
    """What is heard of a call as a program sends it that checks nothing itself."""
    asked = httpx.post(f"{page.url}gradio_api/call/generate", json={"data": values}, headers=headers, timeout=60)
    address = f"{page.url}gradio_api/call/generate/{asked.json()['event_id']}"
    return httpx.get(address, headers=headers, timeout=60).text


def with_image(image: object) -> list[Any]:
    """The values of a call, in order, up to `image`."""
    return [AFTER, "", None, None, None, 2, None, 7, None, None, None, 1, image]


def file_data(path: str, **more: object) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def things(page: Page) -> tuple[int, int, int]:
    """How much is kept: jobs, pictures, pictures to begin from."""
    services = page.services
    kept = len(list(services.settings.sources_dir.rglob("*.png")))
    return sum(services.ledger.job_counts().values()), services.gallery.count(), kept


def test_a_scene_is_drawn_over_as_our_own_api_and_the_library_do(own: Page, client: Any, files: Path) -> None:
    scene = files / "scene.png"
    (path,), told = client.predict(**QUICK, image=handle_file(str(scene)), strength=0.6, api_name="/generate")
    recipe = told["pictures"][0]["recipe"]
    assert recipe["strength"] == 0.6 and own.services.sources.open(recipe["init_image"]).tobytes() == pixels(scene)
    (ours,) = own.services.generate(**QUICK, init_image=scene, strength=0.6, again=True)
    assert ours.id != told["pictures"][0]["id"]
    assert pixels(path) == pixels(own.services.gallery.path(ours))
    encoded = base64.b64encode(scene.read_bytes()).decode()
    theirs = drawn_by_json(own, {**QUICK, "init_image": encoded, "strength": 0.6}, {"X-Flash-Visitor": new_token()})
    assert pixels(path) == theirs
    (plain,), _ = client.predict(**QUICK, api_name="/generate")
    assert pixels(plain) != pixels(path)
    (other,), _ = client.predict(**QUICK, image=handle_file(str(scene)), strength=0.2, api_name="/generate")
    assert pixels(other) != pixels(path)
    (named_path,), _ = client.predict(**QUICK, image=recipe["init_image"], strength=0.6, api_name="/generate")
    assert pixels(named_path) == pixels(path)
    (again,), _ = client.predict(**QUICK, image=encoded, strength=0.6, api_name="/generate")
    assert pixels(again) == pixels(path)


def test_what_the_mask_leaves_keeps_every_bit(client: Any, files: Path) -> None:
    given = {"image": handle_file(str(files / "scene.png")), "mask": handle_file(str(files / "mask.png"))}
    (path,), told = client.predict(**QUICK, **given, strength=1.0, mask_blur=0, api_name="/generate")
    left, right = (0, 0, 64, 128), (64, 0, 128, 128)
    before, after = opened(files / "scene.png"), opened(Path(path))
    assert after.crop(left).tobytes() == before.crop(left).tobytes()
    assert after.crop(right).tobytes() != before.crop(right).tobytes()
    assert told["pictures"][0]["recipe"]["mask"]


def test_it_grows_is_enlarged_and_keeps_to_a_shape(own: Page, client: Any, files: Path) -> None:
    scene = handle_file(str(files / "scene.png"))
    (path,), _ = client.predict(**QUICK, image=scene, outpaint_left=32, strength=1.0, api_name="/generate")
    grown, before = opened(Path(path)), opened(files / "scene.png")
    assert grown.size == (160, 128) and grown.crop((32, 0, 160, 128)).tobytes() == before.tobytes()
    (path,), _ = client.predict(**QUICK, hires_scale=1.5, api_name="/generate")
    assert opened(Path(path)).size == (192, 192)
    (control,) = [row["id"] for row in client.predict(api_name="/models")["controls"] if "hub_id" not in row]
    assert control in {row.id for row in own.services.catalogue.controls}
    steered = {**QUICK, "num_inference_steps": 12, "control": control}
    (path,), told = client.predict(**steered, control_image=scene, api_name="/generate")
    (ours,) = own.services.generate(**steered, control_image=files / "scene.png", again=True)
    assert told["pictures"][0]["recipe"]["control"] == control
    assert pixels(path) == pixels(own.services.gallery.path(ours))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("text.png", "The picture is no PNG, JPEG or WebP picture. Choose another picture."),
        ("drawing.svg", "The picture is no PNG, JPEG or WebP picture. Choose another picture."),
        ("moves.gif", "The picture is no PNG, JPEG or WebP picture. Choose another picture."),
        ("nothing.png", "The picture is an empty file. Choose another picture."),
        ("half.png", "The picture is damaged or cut off. Choose another picture."),
        ("vast.png", "The picture has more than 50 megapixels. Choose another picture."),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(
    own: Page, client: Any, files: Path, name: str, sentence: str
) -> None:
    before = things(own)
    with pytest.raises(AppError) as refused:
        client.predict(**QUICK, image=handle_file(str(files / name)), api_name="/generate")
    assert str(refused.value) == sentence and things(own) == before


def test_a_mask_goes_with_a_picture_and_has_white(own: Page, client: Any, files: Path) -> None:
    before = things(own)[:2]
    mask = {"mask": handle_file(str(files / "mask.png"))}
    with pytest.raises(AppError, match="There is a mask, and no picture that it belongs to"):
        client.predict(**QUICK, **mask, api_name="/generate")
    given = {"image": handle_file(str(files / "scene.png")), "mask": handle_file(str(files / "black.png"))}
    with pytest.raises(AppError, match="The mask is empty"):
        client.predict(**QUICK, **given, api_name="/generate")
    with pytest.raises(AppError, match="Strength is 2"):
        client.predict(**QUICK, strength=2, api_name="/generate")
    assert things(own)[:2] == before


def test_what_is_too_large_is_not_taken(own: Page, client: Any, tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(50 * 2**20 + 1)
    with pytest.raises(ValueError, match="exceeds the maximum file size"):
        client.predict(**QUICK, image=handle_file(str(tmp_path / "large.png")), api_name="/generate")
    with (tmp_path / "large.png").open("rb") as file:
        answer = httpx.post(f"{own.url}gradio_api/upload", files={"files": file}, timeout=60)
    assert answer.status_code == 413
    for path in ("call/generate", "queue/join", "run/predict"):
        answer = httpx.post(f"{own.url}gradio_api/{path}", content=b'"' + b"A" * (64 * 2**20), timeout=60)
        assert answer.status_code == 413 and "more than 64 MB" in answer.text


def test_nothing_of_a_call_stays_in_memory(own: Page, files: Path) -> None:
    text = base64.b64encode((files / "scene.png").read_bytes()).decode()
    heard = [said(own, with_image(given), {}) for given in (text, "what is this?", file_data("http://127.0.0.1/a.png"))]
    assert "pictures/" in heard[0] and "no base64" in heard[1] and "is not fetched" in heard[2]
    marked = with_image(file_data("http://127.0.0.1/a.png"))
    marked[0] = f"a red circle {time.monotonic_ns()}"
    assert "is not fetched" in said(own, marked, {})
    prompt = str(marked.pop(0))
    said(own, with_image(None), {})  # Gradio's line holds the last one until another comes
    deadline = time.monotonic() + 10
    while (left := kept(prompt, text)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def kept(*texts: str) -> Sequence[object]:
    """What holds one of `texts`, of what outlives its call."""
    gc.collect()
    things = gc.get_objects()
    values = [each for each in things if type(each) is dict and _is_one(each.get("value"), texts)]
    return values + [each for each in things if type(each) is list and any(_is_one(item, texts) for item in each)]


def _is_one(value: object, texts: tuple[str, ...]) -> bool:
    return type(value) is str and value in texts


def test_no_address_is_asked_for(own: Page, client: Any, files: Path) -> None:
    mine = sent(own, files / "scene.png", {})
    assert "event: complete" in said(own, with_image(file_data(mine)), {})
    before, outside = things(own), str(files / "scene.png")
    with watched_names() as heard:
        with pytest.raises(AppError) as refused:
            client.predict(**QUICK, image=handle_file("http://pictures.example.org/a.png"), api_name="/generate")
        assert str(refused.value) == NOT_FETCHED
        for address in ("https://pictures.example.org/a.png", "http://203.0.113.7/a.png"):
            for given in (file_data(address), [file_data(address)], {"path": "x", "more": file_data(address)}):
                assert NOT_FETCHED in said(own, with_image(given), {})
            assert "at an address is not fetched" in said(own, with_image(address), {})
            # Whatever listener it is, and in whatever value.
            asked = {"data": [[file_data(address)]], "session_hash": "x"}
            asked["fn_index"] = next(index for index, fn in own.demo.fns.items() if fn.api_name == "flash")
            httpx.post(f"{own.url}gradio_api/queue/join", json=asked, timeout=60).raise_for_status()
            with httpx.stream(
                "GET", f"{own.url}gradio_api/queue/data", params={"session_hash": "x"}, timeout=60
            ) as stream:
                assert any("is not fetched" in line for line in stream.iter_lines())
        for path in (outside, "/etc/passwd", "", f"file://{outside}", "ftp://pictures.example.org/a.png"):
            assert NOWHERE in said(own, with_image(file_data(path)), {})
            assert NOT_SENT in said(own, with_image({"path": path}), {})
        for odd in (file_data("x", size="y"), {"path": "x", "meta": "y"}):
            assert NOWHERE in said(own, with_image(odd), {})
        assert NOT_SENT in said(own, with_image({}), {}) and NOT_SENT in said(own, with_image({"path": 5}), {})
        assert things(own) == before
        elsewhere = file_data(mine, url="http://pictures.example.org/a.png")  # where it is does not count, only what
        assert "event: complete" in said(own, with_image(elsewhere), {})
    assert heard and not [name for name in heard if "pictures.example.org" in name or "203.0.113" in name]


def test_who_knows_fewer_parameters_still_calls(own: Page) -> None:
    heard = said(own, with_image(None)[:12], {})
    assert "event: complete" in heard and '"state": "done"' in heard
    assert "There is no prompt. Write what the picture should show." in said(own, [], {})


def test_every_way_to_say_who_one_is_goes_with_a_picture(shared: Page, files: Path) -> None:
    token = new_token()
    ways = (
        {"headers": {"Authorization": f"Bearer {PASSWORD}", "X-Flash-Visitor": token}},
        {"auth": ("anybody", PASSWORD), "headers": {"X-Flash-Visitor": new_token()}},
        {"httpx_kwargs": {"auth": (new_token(), PASSWORD)}},
    )
    drawn = set[bytes]()
    for way in ways:
        scene = handle_file(str(files / "scene.png"))
        (path,), _ = shared.client(**way).predict(**QUICK, image=scene, strength=0.6, api_name="/generate")
        drawn.add(pixels(path))
    assert len(drawn) == 1


def test_anothers_file_is_as_one_that_is_not_there(shared: Page, files: Path, tmp_path: Path) -> None:
    ada, bob = somebody(), somebody()
    Image.effect_noise((96, 96), 80).save(tmp_path / "adas.png")
    hers = sent(shared, tmp_path / "adas.png", ada)
    (drawn,), _ = shared.client(headers=ada).predict(**QUICK, api_name="/generate")
    cached = [path for path in Path(hers).parents[1].rglob("*.png") if path.read_bytes() == Path(drawn).read_bytes()]
    assert cached, "what was drawn for her lies where uploads lie"
    before = things(shared)
    for path in (hers, *map(str, cached), f"{hers}/../{Path(hers).name}", hers.replace("adas", "bobs")):
        assert NOT_YOURS in said(shared, with_image(file_data(path)), bob)
        assert NOT_YOURS in said(shared, with_image({"path": path}), bob)
    nameless = {"Authorization": f"Bearer {PASSWORD}"}
    assert "There is no X-Flash-Visitor" in said(shared, with_image(file_data(hers)), nameless)
    assert things(shared) == before
    assert "event: complete" in said(shared, with_image(file_data(hers)), ada)
    sent(shared, tmp_path / "adas.png", nameless)
    assert NOT_YOURS in said(shared, with_image(file_data(hers)), bob), "nor is what nobody sent"
    assert sent(shared, tmp_path / "adas.png", bob) == hers, "the same bytes lie at the same place"
    assert "event: complete" in said(shared, with_image(file_data(hers)), bob)
    kept = next(path.stem for path in shared.services.settings.sources_dir.rglob("*.png"))
    assert "There is no such picture here" in said(shared, with_image(kept), somebody())


def test_the_same_key_is_the_same_picture_to_begin_from(own: Page, client: Any, files: Path) -> None:
    key = {"Idempotency-Key": new_token()}
    scene, mask = (handle_file(str(files / name)) for name in ("scene.png", "mask.png"))
    values = {"prompt": AFTER, "num_inference_steps": 2, "api_name": "/generate", "headers": key}
    told = [client.predict(**values, image=scene)[1] for _ in range(2)]
    assert told[0]["id"] == told[1]["id"]
    with pytest.raises(AppError, match="another"):
        client.predict(**values, image=mask)


def test_a_picture_that_is_drawn_over_shows_what_is_asked_for(client: Any, files: Path) -> None:
    scene, wanted = handle_file(str(files / "scene.png")), parse(AFTER)
    values = {**QUICK, "num_inference_steps": 20}
    (path,), _ = client.predict(**values, image=scene, strength=0.9, api_name="/generate")
    assert wanted is not None
    assert judge(opened(Path(path)), wanted).correct
