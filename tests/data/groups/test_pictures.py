import random

import pytest
from PIL import Image, ImageDraw

from data.groups.pictures import PictureIndex, picture_hash


def picture(seed: int, size: int = 128) -> Image.Image:
    draw = random.Random(seed)
    image = Image.new("RGB", (size, size), tuple(draw.choices(range(256), k=3)))
    canvas = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, side = draw.randrange(size), draw.randrange(size), draw.randrange(10, 50)
        canvas.ellipse((x, y, x + side, y + side), fill=tuple(draw.choices(range(256), k=3)))
    return image


def test_a_picture_resized_is_near_and_another_is_not() -> None:
    index = PictureIndex(12)
    for seed in range(40):
        index.add(picture_hash(picture(seed)), str(seed))
    for seed in range(40):
        assert index.near(picture_hash(picture(seed).resize((96, 96), Image.Resampling.LANCZOS))) == [str(seed)]
        assert index.near(picture_hash(picture(1000 + seed))) == []


def test_every_picture_within_the_distance_is_found() -> None:
    draw, index = random.Random(3), PictureIndex(12)
    bits = draw.getrandbits(256)
    index.add(bits, "it")
    for _ in range(200):
        places = draw.sample(range(256), 13)
        assert index.near(bits ^ sum(1 << place for place in places[:12])) == ["it"]
        assert index.near(bits ^ sum(1 << place for place in places)) == []
    with pytest.raises(ValueError, match="up to 15 bits"):
        PictureIndex(16)


def test_the_same_picture_in_many_groups_and_many_times() -> None:
    index = PictureIndex(12)
    for number in range(20_000):
        index.add(0, str(number % 5000))
    assert sorted(index.near(1)) == sorted(map(str, range(5000)))
    assert len(index._bands[0][0]) == 5000  # each is kept once
