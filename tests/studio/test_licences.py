"""Under which licences what drew a picture is: kept with it, and shown with it."""

from pathlib import Path

from studio.services import Services
from tabs.views import all_facts, short_facts
from tests.studio.adapter_files import adapter_file

CIRCLE = "a red circle on a white background"


def test_a_picture_keeps_and_shows_the_licences_of_all_that_drew_it(services: Services, tmp_path: Path) -> None:
    stated = adapter_file(tmp_path / "stated.safetensors", metadata={"modelspec.license": "CC BY-NC 4.0 <b>"})
    silent = adapter_file(tmp_path / "silent.safetensors", scale=0.5)
    for file in (stated, silent):
        services.adapters.store.add(file)
    prompt = f"{CIRCLE} <lora:stated:0.1> <lora:silent:0.1>"
    made = services.generate(prompt, accelerator="flash-pocket-sd15", num_inference_steps=2, seed=7)[0]
    told = made.environment["licences"]
    assert told.split("; ") == [
        "pocket-sd15: MIT", "flash-pocket-sd15: MIT", "stated: CC BY-NC 4.0 <b>", "silent: no licence stated",
    ]  # fmt: skip
    for facts in (short_facts(made, services.catalogue), all_facts(made, services.catalogue)):
        assert "stated: CC BY-NC 4.0 &lt;b&gt;" in facts and "<b>" not in facts
    assert services.generate(prompt, accelerator="flash-pocket-sd15", num_inference_steps=2, seed=7)[0] == made


def test_another_licence_makes_no_other_picture(services: Services) -> None:
    made = services.generate(CIRCLE, num_inference_steps=2, seed=7)[0]
    assert made.environment["licences"] == "pocket-sd15: MIT"
    verdict = services.reproduction.submit(made.id).result()
    assert verdict["judgement"] == "identical" and verdict["changed"] == {}
