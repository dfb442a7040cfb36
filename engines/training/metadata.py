"""What an adapter file says of itself, in the words of kohya's scripts (`ss_…`) and of ModelSpec 1.0.1."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from engines.loading import Loaded
from studio.domain.adapter import stated_base
from studio.domain.training import TrainingPlan

_MOST_TAGS = 200


def base_metadata(loaded: Loaded, *, title: str, size: int, rank: int, alpha: float) -> dict[str, str]:
    """What is true of every adapter that was trained on `loaded`."""
    checkpoint = loaded.checkpoint
    is_v = loaded.prediction_type == "v_prediction"
    return {
        "modelspec.sai_model_spec": "1.0.1",
        **stated_base(checkpoint.family, is_v=is_v),
        "modelspec.title": title,
        "modelspec.date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.prediction_type": "v" if is_v else "epsilon",
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.license": checkpoint.licence,
        "ss_v2": str(checkpoint.family == "sd21"),
        "ss_sd_model_name": checkpoint.id,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_resolution": f"({size}, {size})",
        "ss_output_name": title,
    }


def adapter_metadata(loaded: Loaded, plan: TrainingPlan, step: int, captions: Sequence[str]) -> dict[str, str]:
    """What the adapter of `plan` says of itself that was best after `step`; `captions` are those it learnt from."""
    tags = Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip())
    told = {
        **base_metadata(loaded, title=plan.name, size=plan.size, rank=plan.rank, alpha=plan.alpha),
        "ss_num_train_images": str(plan.num_pictures - plan.num_held_out),
        "ss_learning_rate": f"{plan.learning_rate:g}",
        "ss_unet_lr": f"{plan.learning_rate:g}",
        "ss_text_encoder_lr": f"{plan.text_learning_rate:g}",
        "ss_optimizer": plan.optimizer,
        "ss_lr_scheduler": plan.schedule,
        "ss_max_train_steps": str(plan.num_steps),
        "ss_steps": str(step),
        "ss_batch_size_per_device": str(plan.batch_size),
        "ss_gradient_accumulation_steps": str(plan.accumulation),
        "ss_min_snr_gamma": f"{plan.snr_gamma:g}",
        "ss_noise_offset": f"{plan.noise_offset:g}",
        "ss_caption_dropout_rate": f"{plan.caption_dropout:g}",
        "ss_seed": str(plan.seed),
        "ss_tag_frequency": json.dumps({"training": dict(tags.most_common(_MOST_TAGS))}, ensure_ascii=False),
    }
    if plan.decompose:
        told["ss_network_args"] = json.dumps({"dora_wd": "True"})  # as LyCORIS, which trains them for kohya's scripts
    if plan.trigger:
        told["modelspec.trigger_phrase"] = plan.trigger
    return told
