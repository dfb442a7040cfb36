"""A model of transformers that puts pictures into words: BLIP, GIT and their like, or one that is asked in a chat."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from engines.devices import choose_device
from studio.domain.errors import CorruptModel, NotFound

MAX_NEW_TOKENS = 200


class Seer:
    """A loaded model with its processor."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor

    @property
    def takes_instruction(self) -> bool:
        """Whether it is asked in words; one that is not says what it says."""
        return bool(getattr(self._processor, "chat_template", None))

    @torch.inference_mode()
    def describe(self, image: Image.Image, instruction: str = "") -> str:
        """What it says of `image`; the same each time."""
        inputs = self._inputs(image, instruction).to(self._model.device, self._model.dtype)
        made = self._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        asked = inputs["input_ids"].shape[1] if self.takes_instruction else 0
        text: str = self._processor.batch_decode(made[:, asked:], skip_special_tokens=True)[0]
        return text.strip()

    def _inputs(self, image: Image.Image, instruction: str) -> Any:
        if not self.takes_instruction:
            return self._processor(images=image, return_tensors="pt")
        content = [{"type": "image", "image": image}, {"type": "text", "text": instruction}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip


def load_seer(folder: Path, device: str) -> Seer:
    """Load the model in `folder`; nothing is fetched, no code of its own is run, no pickle opened.

    Raises:
        NotFound: there is no such folder.
        CorruptModel: it holds no model that puts pictures into words, with weights in safetensors.
    """
    if not (folder / "config.json").is_file():
        raise NotFound(
            f"{folder.name!r} holds no model.", "Give the folder of a model that captions pictures, such as BLIP."
        )
    place = choose_device(device, "auto")
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except Exception as error:  # transformers fails in more ways than it documents
        raise CorruptModel(
            f"{folder.name!r} holds no model that can be used to caption pictures: {str(error).splitlines()[0][:200]}",
            "Its folder needs config.json, the processor's files and weights in safetensors.",
        ) from error
    return Seer(model.eval().to(place.name), processor)
