import pytest

from lora_registry.names import TensorName, read_name

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
Q_PROJ = "text_model.encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("name", "layout", "part", "path", "role"),
    [
        (f"unet.{TO_Q}.lora.down.weight", "diffusers", "unet", TO_Q, "down"),
        (f"unet.{TO_Q[:-5]}.processor.to_q_lora.up.weight", "diffusers", "unet", TO_Q, "up"),
        (f"{TO_Q[:-5]}.processor.to_out_lora.up.weight", "diffusers", "unet", f"{TO_Q[:-5]}.to_out.0", "up"),
        (f"text_encoder.{Q_PROJ}.lora_linear_layer.down.weight", "diffusers", "text_encoder", Q_PROJ, "down"),
        (f"text_encoder.{Q_PROJ[:-7]}.to_q_lora.down.weight", "diffusers", "text_encoder", Q_PROJ, "down"),
        (f"text_encoder_2.{Q_PROJ}.lora_A.weight", "peft", "text_encoder_2", Q_PROJ, "down"),
        (f"base_model.model.unet.{TO_Q}.lora_B.weight", "peft", "unet", TO_Q, "up"),
        (f"base_model.model.{TO_Q}.lora_B.default.weight", "peft", "unet", TO_Q, "up"),
        (f"base_model.model.{Q_PROJ}.lora_A.weight", "peft", "text_encoder", Q_PROJ, "down"),
        (f"unet.{TO_Q}.lora_magnitude_vector", "peft", "unet", TO_Q, "magnitude"),
        (f"unet.{TO_Q}.lora_B.bias", "peft", "unet", TO_Q, "bias"),
        ("lora_unet_mid_block_proj.lora_down.weight", "kohya", "unet", "mid_block_proj", "down"),
        ("lora_unet_input_blocks_4_1_proj_in.alpha", "kohya", "unet", "input_blocks_4_1_proj_in", "alpha"),
        ("lora_te1_text_model_x.hada_w1_a", "kohya", "text_encoder", "text_model_x", "hada_w1_a"),
        ("lora_te2_text_model_x.dora_scale", "kohya", "text_encoder_2", "text_model_x", "dora_scale"),
        ("lora_te_text_model_x.lokr_w2_b", "kohya", "text_encoder", "text_model_x", "lokr_w2_b"),
    ],
)
def test_a_name_tells_layout_part_module_and_role(name: str, layout: str, part: str, path: str, role: str) -> None:
    assert read_name(name) == TensorName(layout=layout, part=part, path=path, role=role)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "lora_unet_",
        "lora_unet_.alpha",
        "lora_unet_x.surprise",
        "unet.conv_in.weight",
        "somewhere.else.lora_A.weight",
        "unet.x.hada_w9",
        "conditioner.embedders.0.weight",
    ],
)
def test_other_names_are_not_guessed_at(name: str) -> None:
    assert read_name(name) is None
