"""A picture that is shown to others keeps its pixels and its mark, and tells nothing of its prompt."""

import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_registry.png import START, without_texts


def test_pixels_and_mark_stay_and_words_go() -> None:
    image, info, file = Image.linear_gradient("L").resize((40, 30)).convert("RGB"), PngInfo(), io.BytesIO()
    info.add_text("parameters", "a secret heart, Steps: 4")
    info.add_text("studio", "a secret heart", zip=True)
    info.add_itxt("notes", "a secret heart")
    info.add_itxt("XML:com.adobe.xmp", "<made by a model/>")
    image.save(file, "PNG", pnginfo=info, exif=Image.Exif())
    shown = without_texts(file.getvalue())
    with Image.open(io.BytesIO(shown)) as opened:
        assert opened.tobytes() == image.tobytes()
        assert opened.text == {"XML:com.adobe.xmp": "<made by a model/>"}  # type: ignore[attr-defined]
    assert b"secret" not in shown
    assert without_texts(shown) == shown


def test_what_is_cut_off_is_no_error() -> None:
    assert without_texts(START) == START and without_texts(START + b"\0\0\0\xffIDAT") == START
