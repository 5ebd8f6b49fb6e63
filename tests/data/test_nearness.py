import random
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data import nearness
from data.nearness import PictureIndex, SentenceIndex, jaccard, nearest_by_sentences, nearest_by_words, picture_hash
from data.splits import words_of


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


def test_the_nearest_prompt_is_that_of_all_pairs() -> None:
    draw = random.Random(0)
    words = [f"w{i}" for i in range(30)]
    some, known = ([" ".join(draw.choices(words, k=draw.randrange(0, 9))) for _ in range(300)] for _ in range(2))
    best, where = (np.concatenate(parts) for parts in zip(*nearest_by_words(some, known), strict=True))
    for i, prompt in enumerate(some):
        every = [jaccard(words_of(prompt), words_of(other)) for other in known]
        assert np.isclose(best[i], max(every))
        assert np.isclose(every[where[i]], max(every))


def directions(texts: Sequence[str]) -> np.ndarray:
    """A vector of length 1 for each text, in few dimensions so that many are near."""
    vectors = np.stack([np.random.default_rng(int(text)).normal(size=4) for text in texts]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_sentences_are_compared_with_all_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "_COMPARED", 4000)  # several blocks
    index, texts = SentenceIndex(0.8, directions), [str(i) for i in range(500)]
    vectors = directions(texts)
    for start in range(0, len(texts), 64):
        some = texts[start : start + 64]
        comparison = index.compare([*some, some[0]])
        for place, text in enumerate(some, start):
            expected = {f"group of {other}" for other in range(place) if other % 3 and vectors[place] @ vectors[other] >= index.similarity}
            assert comparison.near(text) == expected
            if place % 3:  # the others are left out
                comparison.add(text, f"group of {place}")
        comparison.close()
    assert index.group("7") == "group of 7"
    assert index.group("6") is None
    assert index.compare(["7"]).near("7") == {"group of 7"}


def test_the_nearest_sentence_is_that_of_all_pairs() -> None:
    some, known = [str(i) for i in range(300)], [str(i) for i in range(1000, 1500)]
    best, where = (np.concatenate(parts) for parts in zip(*nearest_by_sentences(some, known, directions), strict=True))
    every = directions(some) @ directions(known).T
    assert np.allclose(best, every.max(1))
    assert (where == every.argmax(1)).all()
