"""What captions say to a UNet: read once and kept, under their words and the checkpoint's weights."""

from pathlib import Path

import torch

from engines.training.text import KeptTexts
from tests.engines.training.test_adapter import pipeline_of


def test_a_text_that_was_read_is_not_read_again_but_with_other_weights(tmp_path: Path) -> None:
    pipeline = pipeline_of("sd15")
    said = ["a red star", "a blue circle"]
    first = KeptTexts(pipeline, tmp_path, "one").read(said)
    assert len(list(tmp_path.iterdir())) == 2
    with torch.no_grad():
        for parameter in pipeline.text_encoder.parameters():
            parameter.zero_()
    assert torch.equal(KeptTexts(pipeline, tmp_path, "one").read(said).embeds, first.embeds)
    other = KeptTexts(pipeline, tmp_path, "other").read(said).embeds
    assert not torch.allclose(other, first.embeds) and len(list(tmp_path.iterdir())) == 4
