"""What the trained networks write for the pictures in the box, one beside the other: differences over several seeds, and what each gets wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.study.learning import model_of
from data.sources.chosen import PairSource
from data.sources.held_out import HeldOutPictures
from data.sources.opening import open_splits
from diffusion.mini.world import read_slots
from diffusion.pipelines import default_device
from evaluate import DEFAULT_DATA
from evaluation.baselines import Known, Settings, build_baseline
from evaluation.captioners import Captioner
from evaluation.comparison import Comparison
from evaluation.inverting import InverterCaptioner
from evaluation.judging import SHARES, SLOT, Judgement
from evaluation.meaning import SentenceSimilarity
from evaluation.measuring import measure
from evaluation.provenance import from_here, provenance
from evaluation.report import failures
from evaluation.round_trip import Painter
from evaluation.statistics import LEVEL, Units, mean_estimates
from inference import load_inverter

METRICS = ("similarity", "cider_d", "exact_match")
_CONFUSIONS = 3


def pictures_in_the_box(count: int) -> HeldOutPictures:
    return HeldOutPictures.of(open_splits(str(DEFAULT_DATA))["test"], count)


def compare_runs(
    runs: Mapping[str, Path],
    pictures: HeldOutPictures,
    *,
    training: Callable[[], PairSource] | None,
    title: str,
    report: Path,
    json: Path,
    painter: Painter | None = None,
) -> Comparison:
    """Networks by name, in float32 by four beams, and with `training` the floors that know those pairs.

    Raises:
        RuntimeError: a captioner failed, or the painter.
    """
    captioners: dict[str, Callable[[], Captioner]] = {name: partial(_captioner, model_of(run)) for name, run in runs.items()}
    if training is not None:
        settings = Settings(known=Known(training), count=len(pictures), device=default_device())
        captioners |= {name: partial(build_baseline, name, settings) for name in ("nearest", "constant")}
    comparison = measure(
        captioners,
        pictures,
        about=provenance(
            pictures, data=from_here(str(DEFAULT_DATA)), split="test", training=training, settings={"num_beams": 4, "bootstrap_seed": 0}
        ),
        title=title,
        read_slots=read_slots,
        similarity=SentenceSimilarity.if_there(print),
        painter=painter,
        report=report,
        json=json,
    )
    if lost := failures(comparison):
        raise RuntimeError(f"{report}: {'; '.join(f'{name}: {why}' for name, why in lost)}")
    return comparison


def _captioner(directory: Path) -> Captioner:
    return InverterCaptioner(load_inverter(directory, dtype="float32"), str(directory))


def judgements(comparison: Comparison) -> dict[str, Judgement]:
    return {column.name: column.judgement for column in comparison.columns if column.judgement is not None}


def differences(ones: Sequence[Judgement], others: Sequence[Judgement], groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How much more one network has than another of each metric and slot, of each picture the mean over the seeds, with the interval over pictures.

    Args:
        ones, others: of each seed what the network of that seed deserves, on the same pictures.

    Returns:
        by metric or slot the numbers of an `Estimate`, `seeds`, the difference of each, and `established`: the interval, which is one of the choice
        of pictures, does not hold 0, and by Student's test trainings with other seeds differ by less (5 %, two-sided; of one seed that is not known).
    """
    names = [name for name in ones[0].scores if name in METRICS or name.startswith(SLOT)]
    sides = [{name: np.stack([seed.scores[name] for seed in side]) for name in names} for side in (ones, others)]
    each = {name: sides[0][name] - sides[1][name] for name in names}
    shares = frozenset(name for name in names if name in SHARES or name.startswith(SLOT))
    found = mean_estimates({name: values.mean(0) for name, values in each.items()}, Units(groups), shares=shares, differences=True)
    rows = {}
    for name, estimate in found.items():
        beyond_seeds = len(ones) == 1 or _differ(*(np.nanmean(side[name], axis=1) for side in sides))
        rows[name] = asdict(estimate) | {"seeds": np.nanmean(each[name], axis=1).tolist(), "established": estimate.established and beyond_seeds}
    return rows


def _differ(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    with np.errstate(divide="ignore", invalid="ignore"):  # of seeds that all came to the same
        return bool(stats.ttest_ind(one, other).pvalue < 1 - LEVEL)


def mistakes(truths: Sequence[Mapping[str, str]], texts: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Of each slot: of how many pictures it was asked, how often it was right, left out or another, and which were taken for which most often.

    Args:
        truths: the slots of each picture.
        texts: of each seed the texts for the pictures.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for truth in truths for name, value in truth.items() if value):
        said = [(truth[name], read_slots(text).get(name, "")) for row in texts for truth, text in zip(truths, row, strict=True) if truth.get(name)]
        taken = Counter((true, guess) for true, guess in said if guess and guess != true)
        found[name] = {
            "asked": len(said),
            "right": sum(true == guess for true, guess in said),
            "left_out": sum(not guess for _, guess in said),
            "another": taken.total(),
            "confusions": [[true, guess, count] for (true, guess), count in taken.most_common(_CONFUSIONS)],
        }
    return found
