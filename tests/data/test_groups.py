import random

import pytest
from PIL import Image, ImageDraw

from data.groups import Groups, LeakError, PictureIndex, jaccard, picture_hash
from data.splits import prompt_group, split_of, words_of

WORDS = [f"word{i}" for i in range(400)]


def sentence(draw: random.Random, length: int = 12) -> str:
    return " ".join(draw.sample(WORDS, length))


def changed(prompt: str, draw: random.Random) -> str:
    words = prompt.split()
    words[draw.randrange(len(words))] = "changed"
    return ", ".join(draw.sample(words, len(words)))


def test_prompts_that_share_most_words_share_a_group() -> None:
    draw, groups = random.Random(0), Groups()
    prompts = [sentence(draw) for _ in range(300)]
    own = [groups.group_of(prompt) for prompt in prompts]
    assert own == [prompt_group(prompt) for prompt in prompts]  # nothing near: each begins a group
    for prompt, group in zip(prompts, own, strict=True):
        near = changed(prompt, draw)
        assert 0.8 <= jaccard(words_of(prompt), words_of(near)) < 1
        assert groups.group_of(near) == group
        assert groups.group_of(prompt.upper() + "!") == group


def test_groups_do_not_move_when_data_is_added() -> None:
    draw = random.Random(1)
    first = [sentence(draw) for _ in range(200)]
    later = [changed(prompt, draw) for prompt in first[:100]] + [sentence(draw) for _ in range(200)]
    alone, together = Groups(), Groups()
    before = [alone.group_of(prompt) for prompt in first]
    assert [together.group_of(prompt) for prompt in first + later][:200] == before


def test_what_lies_between_two_splits_is_left_out() -> None:
    draw = random.Random(2)
    while True:
        words = draw.sample(WORDS, 22)
        one, other = " ".join(words[:20]), " ".join(words[2:])  # 18 of 22 shared
        between = " ".join(words[1:21])
        if split_of(prompt_group(one)) != split_of(prompt_group(other)):
            break
    groups = Groups(prompt_similarity=0.85)
    groups.group_of(one)
    groups.group_of(other)
    with pytest.raises(LeakError, match="several splits") as error:
        groups.group_of(between)
    assert error.value.kind == "prompt near two splits"
    with pytest.raises(LeakError):  # and it is not remembered
        groups.group_of(between)


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


def test_the_same_picture_goes_where_it_is_known() -> None:
    groups, same = Groups(), picture_hash(picture(1))
    first = groups.group_of("a red house", same)
    assert groups.group_of("something else entirely", same) == first
    other = next(prompt for prompt in map(str, range(1000)) if split_of(prompt_group(prompt)) != split_of(first))
    groups.group_of(other)
    with pytest.raises(LeakError) as error:
        groups.group_of(other, same)
    assert error.value.kind == "picture near another split"
