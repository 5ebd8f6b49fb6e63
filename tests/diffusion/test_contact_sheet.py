import pytest
from PIL import Image

from diffusion.contact_sheet import contact_sheet


def test_images_stand_in_rows_above_their_captions() -> None:
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]
    sheet = contact_sheet(images, ["one", "two " * 100, ""], columns=2, cell=64, lines=2)
    assert sheet.getpixel((6 + 32, 6 + 32)) == (255, 0, 0)
    assert sheet.getpixel((6 + 70 + 32, 6 + 32)) == (0, 255, 0)
    assert sheet.getpixel((6 + 32, 6 + 64 + 28 + 6 + 32)) == (0, 0, 255)
    below = sheet.crop((6, 70, 70, 96)).convert("L").getextrema()
    assert below[0] < 100


def test_each_image_needs_a_caption() -> None:
    with pytest.raises(ValueError, match="1 images, 2 captions"):
        contact_sheet([Image.new("RGB", (4, 4))], ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], [])
