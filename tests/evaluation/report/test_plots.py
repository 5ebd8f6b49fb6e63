import math

import pytest

from evaluation.calibration import calibration
from evaluation.report import plots
from evaluation.statistics import Estimate

ONE, SURE = Estimate(0.5, -math.inf, math.inf, 1, 1), Estimate(0.5, 0.4, 0.6, 9, 9)


@pytest.mark.parametrize("name", ["blip=a$x_{$b", "vlm=$1$", "plain", "<b>&"])
def test_names_are_drawn_as_they_are_and_an_interval_without_ends_is_no_error(name: str) -> None:
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    drawn = [plots.intervals({name: ONE, "other": SURE}, "x"), plots.decays({name: [SURE, ONE]}, "x"), plots.decays({name: [ONE]}, "x")]
    drawn.append(plots.reliability({name: calibration([0.2, 0.9], [0, 1])}))
    for text in drawn:
        assert text.startswith("<svg")
        assert shown in text
