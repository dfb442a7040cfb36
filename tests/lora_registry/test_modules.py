import pytest

from lora_registry.modules import spellings, underscored
from tests.lora_registry.making import real_target

SD15 = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.attentions.0.proj_in": "input_blocks.4.1.proj_in",
    "down_blocks.2.resnets.1.conv1": "input_blocks.8.0.in_layers.2",
    "down_blocks.3.resnets.1.conv2": "input_blocks.11.0.out_layers.3",
    "mid_block.resnets.0.time_emb_proj": "middle_block.0.emb_layers.1",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k": "middle_block.1.transformer_blocks.0.attn2.to_k",
    "mid_block.resnets.1.conv1": "middle_block.2.in_layers.2",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
    "up_blocks.1.attentions.0.proj_out": "output_blocks.3.1.proj_out",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
    "up_blocks.2.resnets.0.conv_shortcut": "output_blocks.6.0.skip_connection",
    "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_out.0": (
        "output_blocks.11.1.transformer_blocks.0.attn1.to_out.0"
    ),
}
SDXL = {
    "add_embedding.linear_2": "label_emb.0.2",
    "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_v": ("input_blocks.4.1.transformer_blocks.1.attn2.to_v"),
    "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2": "input_blocks.8.1.transformer_blocks.9.ff.net.2",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    "up_blocks.1.attentions.0.proj_in": "output_blocks.3.1.proj_in",
}


@pytest.mark.parametrize(("family", "names"), [("sd15", SD15), ("sd21", SD15), ("sdxl", SDXL)])
def test_a_unet_module_is_found_under_both_of_its_names(family: str, names: dict[str, str]) -> None:
    paths = real_target(family).modules["unet"]
    table = spellings("unet", paths)
    assert {path: table[underscored(path)] for path in paths} == {path: path for path in paths}
    assert {path: table[underscored(ldm)] for path, ldm in names.items()} == {path: path for path in names}
    assert len(table) >= 2 * len(paths) - 1, "two modules share a name"


@pytest.mark.parametrize("path", ["encoder.layers.0.mlp.fc1", "text_model.encoder.layers.0.mlp.fc1"])
def test_a_text_module_is_found_with_and_without_the_word_that_transformers_dropped(path: str) -> None:
    table = spellings("text_encoder", [path])
    assert table["encoder_layers_0_mlp_fc1"] == table["text_model_encoder_layers_0_mlp_fc1"] == path
