"""Several pictures of one prompt read together by the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import painted
from inverters import coloured, joint_inverter
from PIL import Image

from data.errors import ImageError
from inference import Prediction
from model.familiarity import Familiarity

CAT, DOG, OWL, FOX = (painted(subject, colour) for subject, colour in (("cat", "red"), ("dog", "blue"), ("owl", "green"), ("fox", "red")))
GROUPS = [[CAT, DOG], [OWL], [FOX, CAT, OWL], [DOG, CAT], [OWL, FOX], [CAT]]


def check_same(found: Sequence[Prediction], expected: Sequence[Prediction]) -> None:
    """But for the rounding of batches of other sizes."""
    assert [one.prompt for one in found] == [one.prompt for one in expected]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-5)
    assert [[token.text for token in one.tokens] for one in found] == [[token.text for token in one.tokens] for one in expected]
    assert [[other.prompt for other in one.alternatives] for one in found] == [[other.prompt for other in one.alternatives] for one in expected]


def test_a_group_of_one_picture_is_read_as_that_picture() -> None:
    one = joint_inverter()
    for how in ({"num_beams": 3, "num_return_sequences": 2}, {"prefix": "two", "max_new_tokens": 4}, {"do_sample": True, "seed": 3}):
        assert one.predict_joint([[CAT], [DOG], [OWL]], **how) == one.predict([CAT, DOG, OWL], **how)


@pytest.mark.parametrize("group", [[CAT, DOG], [DOG, CAT], [FOX, OWL, CAT]])
def test_pictures_of_a_group_are_what_the_network_sees_at_once(group: list[Image.Image]) -> None:
    one = joint_inverter()
    pixel_values = torch.stack([one.preprocess(picture) for picture in group])[None]
    assert pixel_values.shape == (1, len(group), 3, 32, 32)
    (texts,) = one.pytorch_model().search(pixel_values, num_beams=3, num_return_sequences=2)
    (found,) = one.predict_joint([group], num_beams=3, num_return_sequences=2)
    assert [found.prompt, found.alternatives[0].prompt] == [one.tokenizer.decode(text.tokens) for text in texts]
    assert [found.score, found.alternatives[0].score] == pytest.approx([text.score for text in texts], abs=1e-5)
    alone = one.predict(group, num_beams=3)
    assert all(abs(found.score - other.score) > 1e-3 for other in alone)


def test_no_group_hears_of_those_beside_it_and_their_order_is_kept() -> None:
    one = joint_inverter()
    each = [one.predict_joint([group], num_beams=2)[0] for group in GROUPS]
    assert len({prediction.score for prediction in each}) == len(GROUPS)
    for size in (1, 2, 32):
        check_same(one.predict_joint((group for group in GROUPS), num_beams=2, batch_size=size), each)
    backwards = sorted(range(len(GROUPS)), key=lambda number: -len(GROUPS[number]))  # neighbours of as many pictures go through together
    check_same(one.predict_joint([GROUPS[number] for number in backwards], num_beams=2, batch_size=2), [each[number] for number in backwards])
    assert one.predict_joint([]) == []


def test_neighbours_with_as_many_pictures_go_through_the_network_together(monkeypatch: pytest.MonkeyPatch) -> None:
    one, batches = joint_inverter(), list[tuple[int, ...]]()
    encode = type(one.model).encode
    monkeypatch.setattr(type(one.model), "encode", lambda self, pixels: batches.append(tuple(pixels.shape[:-3])) or encode(self, pixels))
    one.predict_joint([[CAT, DOG]] * 5 + [[CAT]] * 2 + [[CAT, DOG, OWL]], batch_size=2, max_new_tokens=1)
    assert batches == [(2, 2), (2, 2), (1, 2), (2,), (1, 3)]


def test_a_group_has_the_same_samples_beside_any_others() -> None:
    one = joint_inverter()

    def drawn(groups: Sequence[list[Image.Image]], batch_size: int, seed: int = 5) -> list[str]:
        return [
            found.prompt for found in one.predict_joint(groups, batch_size=batch_size, do_sample=True, temperature=2.0, max_new_tokens=8, seed=seed)
        ]

    together = drawn(GROUPS, 32)
    assert drawn(GROUPS, 1) == together
    assert drawn(GROUPS[::-1], 2) == together[::-1]
    assert drawn(GROUPS, 32, seed=6) != together
    assert together[0] != together[3]  # the same pictures in another order
    assert drawn([[CAT, OWL]], 1) != together[:1]


@pytest.mark.parametrize(("groups", "count"), [([[CAT], []], 0), ([[CAT, DOG, OWL, FOX]], 4), ([[CAT, DOG], [CAT] * 5], 5)])
def test_a_group_that_the_network_cannot_see_at_once_is_refused(groups: list[list[Image.Image]], count: int) -> None:
    with pytest.raises(ValueError, match=f"this model reads 1 to 3 pictures of one prompt together, not {count}"):
        joint_inverter().predict_joint(groups)


def test_pictures_in_the_place_of_groups_are_named(tmp_path: Path) -> None:
    coloured(1).save(tmp_path / "a.png")
    for groups in ([coloured(1), coloured(2)], [str(tmp_path / "a.png")], [tmp_path / "a.png"]):
        with pytest.raises(TypeError, match=r"a list of lists of pictures"):
            joint_inverter().predict_joint(groups)


def test_what_else_cannot_be_meant_is_named_as_for_single_pictures(tmp_path: Path) -> None:
    one = joint_inverter()
    for arguments, message in (({"batch_size": 0}, "batch_size must be a whole number"), ({"num_beams": 0}, "num_beams must be a whole number")):
        with pytest.raises(ValueError, match=message):
            one.predict_joint([[CAT, DOG]], **arguments)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        one.predict_joint([[CAT, tmp_path / "none.png"]])
    with pytest.raises(TypeError, match="not int"):
        one.predict_joint(3)  # type: ignore[arg-type]


def test_a_network_says_how_many_pictures_it_sees_at_once() -> None:
    assert [joint_inverter(frames).most_together for frames in (0, 1, 3)] == [1, 1, 3]
    with pytest.raises(ValueError, match="reads 1 to 1 pictures of one prompt together, not 2"):
        joint_inverter(0).predict_joint([[CAT, DOG]])
    assert joint_inverter(0).predict_joint([[CAT]]) == joint_inverter(0).predict([CAT])


def test_whatever_holds_a_picture_may_be_in_a_group(tmp_path: Path) -> None:
    one = joint_inverter()
    CAT.save(tmp_path / "cat.png")
    found = one.predict_joint([[CAT, DOG], (tmp_path / "cat.png", np.asarray(DOG)), [(tmp_path / "cat.png").read_bytes(), DOG]])
    assert found[1:] == found[:1] * 2


def test_how_familiar_a_group_is_comes_from_all_its_pictures() -> None:
    one = joint_inverter()
    one.familiarity = known = Familiarity(one.encode([CAT]).shape[-1], known=4000)
    known.own.copy_(torch.linspace(-0.5, 0.5, 4000))
    for group in ([CAT, DOG], [CAT, FOX, OWL]):
        (found,) = one.predict_joint([group], max_new_tokens=1)
        assert found.familiarity == pytest.approx(known(one.encode(group).flatten(0, 1)[None])[0], abs=0.002)  # as if all image tokens were of one
        assert found.familiarity != pytest.approx(known(one.encode(group[:1]))[0], abs=0.005)
