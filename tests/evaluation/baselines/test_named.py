import pytest

from evaluation.baselines import NAMES, check_names


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["bllip"], "unknown baseline 'bllip'; there are constant, nearest, blip"),
        (["constant=x"], "constant takes no source"),
        (["blip="], "nothing stands after ="),
        (["vlm"], "name the model as its server does, vlm=MODEL"),
        (["nearest", "nearest"], "is named twice"),
    ],
)
def test_slips_are_named_before_anything_is_computed(specs: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_names(specs)


def test_every_name_and_source_is_taken() -> None:
    check_names([*(name for name in NAMES if name != "vlm"), "vlm=gpt", "blip=a/b", "nearest=vit", "git=/x", "interrogator=/clip", "blip=/x=y"])
