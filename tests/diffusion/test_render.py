"""Rendering with sprites drawn here, so that no font is needed."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from diffusion.mini.backgrounds import PAINTERS as BACKGROUND_PAINTERS
from diffusion.mini.render import IMAGE_SIZE, MissingFontError, load_sprites, render
from diffusion.mini.styles import PAINTERS as STYLE_PAINTERS
from diffusion.mini.world import BACKGROUNDS, LIGHTS, STYLES, SUBJECTS, WEATHERS, Scene


def disc(colour: tuple[int, int, int], width: int = 100) -> Image.Image:
    sprite = Image.new("RGBA", (width, 100))
    ImageDraw.Draw(sprite).ellipse((0, 0, width - 1, 99), fill=(*colour, 255))
    return sprite


SPRITES = {name: disc((250, 60, 20)) for name in SUBJECTS} | {"whale": disc((20, 60, 250))}


def picture(seed: int = 0, **changes: object) -> np.ndarray:
    scene = Scene(**({"subject": "cat", "background": "plain background", "style": "digital art"} | changes))  # type: ignore[arg-type]
    return np.asarray(render(scene, SPRITES, random.Random(seed))[0]).astype(int)


def reddish(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 0] > 180) & (pixels[..., 1] < 110) & (pixels[..., 2] < 110)


def test_every_name_of_the_world_has_a_painter() -> None:
    assert set(BACKGROUND_PAINTERS) == set(BACKGROUNDS)
    assert set(STYLE_PAINTERS) == set(STYLES)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_style_paints_every_background(style: str, background: str) -> None:
    pixels = picture(style=style, background=background)
    assert pixels.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert pixels.std() > 5


def test_styles_and_backgrounds_differ_from_each_other() -> None:
    for names, field in ((STYLES, "style"), (BACKGROUNDS, "background")):
        shown = [picture(**{field: name}) for name in names]
        for i, one in enumerate(shown):
            assert all(np.abs(one - other).mean() > 4 for other in shown[i + 1 :])


@pytest.mark.parametrize("effect", [{"weather": name} for name in WEATHERS] + [{"light": name} for name in LIGHTS] + [{"close_up": True}])
def test_weather_light_and_shot_change_the_picture(effect: dict[str, object]) -> None:
    assert np.abs(picture(**effect) - picture()).mean() > 3


def test_a_close_up_is_larger() -> None:
    assert reddish(picture(close_up=True)).sum() > 1.4 * reddish(picture()).sum()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_count_is_the_number_of_things_to_be_seen(count: int) -> None:
    from scipy.ndimage import label

    slim = SPRITES | {"cat": disc((250, 60, 20), width=50)}
    scene = Scene(subject="cat", background="plain background", style="digital art", count=count)
    for seed in range(5):
        pixels = np.asarray(render(scene, slim, random.Random(seed))[0]).astype(int)
        assert label(reddish(pixels))[1] == count


@pytest.mark.parametrize("seed", range(6))
def test_above_puts_the_subject_on_top(seed: int) -> None:
    pixels = picture(seed, relation="above", other="whale", background="living room")
    red = np.nonzero(reddish(pixels))[0].mean()
    blue = np.nonzero((pixels[..., 2] > 180) & (pixels[..., 0] < 110) & (pixels[..., 1] < 120))[0].mean()
    assert red < blue - 10


@pytest.mark.parametrize("seed", range(6))
def test_next_to_is_named_from_left_to_right(seed: int) -> None:
    pixels = picture(seed, relation="next to", other="whale", background="living room")
    red = np.nonzero(reddish(pixels))[1].mean()
    blue = np.nonzero((pixels[..., 2] > 180) & (pixels[..., 0] < 110) & (pixels[..., 1] < 120))[1].mean()
    assert red < blue - 10


def test_the_mask_is_where_the_subjects_are() -> None:
    scene = Scene(subject="cat", background="plain background", style="digital art", count=2)
    image, mask = render(scene, SPRITES, random.Random(0))
    inside = np.asarray(mask) > 250
    red = reddish(np.asarray(image).astype(int))
    assert red[inside].all()
    assert red.sum() == pytest.approx(inside.sum(), rel=0.15)
    assert not np.asarray(mask)[:4].any()


def test_colour_tints_the_subject() -> None:
    pixels = picture(colour="green")
    assert not reddish(pixels).any()
    middle = pixels[30:38, 28:36].reshape(-1, 3).mean(0)
    assert middle[1] > middle[0] + 20
    assert middle[1] > middle[2] + 20


def test_the_same_seed_gives_the_same_picture() -> None:
    arguments = {"background": "forest", "style": "oil painting", "weather": "snow"}
    assert np.array_equal(picture(3, **arguments), picture(3, **arguments))
    assert not np.array_equal(picture(3, **arguments), picture(4, **arguments))


def test_a_missing_font_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(MissingFontError, match="apt-get install fonts-noto-color-emoji"):
        load_sprites(tmp_path / "none.ttf")
