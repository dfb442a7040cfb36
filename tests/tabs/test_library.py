import json
from collections.abc import Callable

import gradio as gr
import pytest
from PIL import Image

from studio.domain.events import Cancelled
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest
from studio.gallery import NewImage
from studio.services import Services
from studio.web.access import new_token, visitor_of
from tabs.generate import build_generate
from tabs.library import PAGE, LibraryTab, build_library

Keep = Callable[[str], ImageRecord]


@pytest.fixture
def library(services: Services) -> LibraryTab:
    with gr.Blocks():
        return build_library(services, build_generate(services))


def ids(library: LibraryTab, updates: dict) -> list[str]:
    return [picture["id"] for picture in json.loads(updates[library.grid])["pictures"]]


def test_pages_are_newest_first_and_say_where_they_are(library: LibraryTab, keep: Keep) -> None:
    made = [keep("local").id for _ in range(PAGE + 2)]
    first = library.show("", False, None, None, 0)
    assert ids(library, first) == made[:1:-1]
    second = library.show("", False, None, None, 1)
    assert ids(library, second) == made[1::-1]
    assert "49–50 of 50" in second[library.range]
    assert (second[library.newer].interactive, second[library.older].interactive) == (True, False)


def test_search_and_star(library: LibraryTab, keep: Keep, services: Services) -> None:
    plain, starred = keep("local"), keep("local")
    services.gallery.star(starred.id, True)
    assert ids(library, library.show("circle seed:7", False, None, None, 0)) == [starred.id, plain.id]
    assert ids(library, library.show("", True, None, None, 0)) == [starred.id]
    assert ids(library, library.show("steps:26", False, None, None, 0)) == []


def test_a_picture_shows_everything_that_made_it(library: LibraryTab, keep: Keep) -> None:
    updates = library.pick(keep("local"))
    assert "DPM++ 2M Karras" in updates[library.facts]
    assert "Seed: 7" in updates[library.infotext].value


def test_a_shared_page_lists_only_your_own(library: LibraryTab, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/space")
    token = new_token()
    mine = keep(token)
    keep(new_token())
    assert ids(library, library.show("", False, token, None, 0)) == [mine.id]


def test_leaving_a_reproduction_ends_it(library: LibraryTab, keep: Keep, services: Services) -> None:
    token = new_token()
    telling = library.on_reproduce(keep(token).id, token)
    assert "Next in line" in next(telling)[library.verdict]
    [job] = services.runner.active(visitor_of(token))
    telling.close()
    assert isinstance(job.wait(timeout=1), Cancelled)


def test_stop_ends_a_reproduction_and_nothing_else(library: LibraryTab, keep: Keep, services: Services) -> None:
    token = new_token()
    drawing = services.generation.submit(GenerationRequest(prompt="a red circle"), visitor_of(token))
    again = services.reproduction.submit(keep(token).id, visitor_of(token))
    library.on_stop(token)
    assert (again.is_over, drawing.is_over) == (True, False)


def test_deleting_the_only_picture_of_the_last_page_leads_to_the_one_before(
    library: LibraryTab, keep: Keep, services: Services
) -> None:
    made = [keep("local").id for _ in range(PAGE + 1)]
    services.gallery.delete(made[0])
    updates = library.show("", False, None, None, 1)
    assert (updates[library.page], len(ids(library, updates))) == (0, PAGE)


def test_pictures_of_evaluations_show_only_where_they_are_asked_for(
    services: Services, library: LibraryTab, keep: Keep
) -> None:
    token = new_token()
    keep(token)
    job = services.runner.submit("evaluation", {}, visitor_of(token))
    recipe = services.catalogue.resolve(GenerationRequest(prompt="a blue ring", seed=1))
    new = NewImage(
        job_id=job.id, visitor=visitor_of(token), image_index=0, recipe=recipe, prompt_as_run="a blue ring",
        negative_as_run="", environment={}, seconds={"total": 1.0}, peak_memory_mb=1.0,
    )  # fmt: skip
    compared = services.gallery.save(Image.new("RGB", (16, 16), "blue"), new)
    usual, total = library.find("", False, token, 0)
    assert total == 1 and compared.id not in [record.id for record in usual]
    assert [record.id for record in library.find("is:compared", False, token, 0)[0]] == [compared.id]
    assert services.gallery.count() == 2
