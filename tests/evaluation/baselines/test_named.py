import pytest

from evaluation.baselines import NAMES, Known, Settings, build_baseline, check_names
from evaluation.captioners import CaptionerError
from evaluation.config import InterrogatorConfig


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


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("interrogator", "name another baseline"),
        ("interrogator=/clip", "name another baseline"),
        ("bllip", "unknown baseline 'bllip'; there are constant"),
        ("constant=x", "constant takes no source"),
        ("vlm", "name the model"),
    ],
)
def test_phrases_are_chained_onto_the_captions_of_another_baseline(inner: str, message: str) -> None:
    settings = Settings(known=Known(lambda: pytest.fail("training pairs")), count=1, interrogator=InterrogatorConfig(caption=inner))
    with pytest.raises(CaptionerError, match=rf"--interrogator.caption {inner}: .*{message}"):
        build_baseline("interrogator=/clip", settings)
