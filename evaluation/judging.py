"""What predictions deserve: every metric of every image, means with intervals, differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.calibration import Calibration, calibration
from evaluation.meaning import SentenceSimilarity, modifier_jaccard, subject_similarity
from evaluation.overlap import CiderD, Scores, bleu, bleu_statistics, exact_match, rouge_l, slot_scores, token_f1
from evaluation.statistics import Estimate, Units, interval, mean_estimates
from evaluation.surface import degenerate, mean_length, vocabulary_size

SHARES = frozenset({"exact_match", "degenerate"})
BLEU_NAMES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
SLOT = "slot "  # before the name of a slot among the scores

ReadSlots = Callable[[str], Mapping[str, str]]
ClipScores = Callable[[Sequence[str]], dict[str, Scores]]


@dataclass(frozen=True)
class Judgement:
    """One captioner's predictions, judged.

    Attributes:
        scores: of every metric (N,), NaN where an image does not count; slots by `SLOT` and their name.
        bleu_statistics: (N, 10), what BLEU sums up.
        estimates: means over the images, and BLEU of them all, with intervals; so `slots`.
    """

    predictions: Sequence[str]
    scores: Mapping[str, Scores]
    bleu_statistics: NDArray[np.float64]
    estimates: Mapping[str, Estimate]
    slots: Mapping[str, Estimate]
    vocabulary: int
    mean_length: float
    calibration: Calibration | None = None


class Judge:
    """Judges captioners on one set of images; what depends on the references alone is computed once."""

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        groups: Sequence[str],
        *,
        similarity: SentenceSimilarity | None,
        slots: Sequence[Mapping[str, str]] = (),
        read_slots: ReadSlots | None = None,
        clip_scores: ClipScores | None = None,
    ) -> None:
        """
        Args:
            references: of each image its prompts.
            groups: which images belong together.
            similarity: None leaves out what needs a sentence model.
            slots: the parts that each prompt was made from, where they are known.
            read_slots: finds them in a prediction.
            clip_scores: CLIPScore and its like of N predictions.
        """
        if not references:
            raise ValueError("there is no image to judge predictions of")
        self.references = references
        self.groups = groups
        self.units = Units(groups)
        self.similarity = similarity
        self.slots = slots
        self.read_slots = read_slots
        self.clip_scores = clip_scores
        self.cider_d = CiderD(references)

    def __call__(self, predictions: Sequence[str], confidences: Sequence[float | None] = ()) -> Judgement:
        """
        Args:
            confidences: how likely each prediction is right, where the captioner says so.
        """
        scores = self.score(predictions)
        statistics = bleu_statistics(self.references, predictions)
        for name, values in scores.items():
            if np.isnan(values).any() and name != "modifier_jaccard" and not name.startswith(SLOT):
                raise ValueError(f"a score of {name} is no number")
        estimates = mean_estimates(dict(scores), self.units, shares=_shares(scores))
        estimates |= self._bleu(statistics)
        slots = {name.removeprefix(SLOT): estimates.pop(name) for name in list(estimates) if name.startswith(SLOT)}
        known = [
            (value, right) for value, right in zip(confidences, scores["exact_match"], strict=False) if value is not None and math.isfinite(value)
        ]
        calibrated = calibration(*map(list, zip(*known, strict=True))) if known else None
        return Judgement(
            predictions, scores, statistics, _ordered(estimates), slots, vocabulary_size(predictions), mean_length(predictions), calibrated
        )

    def score(self, predictions: Sequence[str]) -> dict[str, Scores]:
        """Every metric that has a number for each image."""
        references = self.references
        scores: dict[str, Scores] = {}
        if self.similarity is not None:
            scores["similarity"] = self.similarity(references, predictions)
            scores["subject_similarity"] = subject_similarity(self.similarity, references, predictions)
        scores["modifier_jaccard"] = modifier_jaccard(references, predictions)
        scores["cider_d"] = self.cider_d(predictions)
        scores["rouge_l"] = rouge_l(references, predictions)
        scores["token_f1"] = token_f1(references, predictions)
        scores["exact_match"] = exact_match(references, predictions)
        if self.clip_scores is not None:
            scores |= self.clip_scores(predictions)
        scores["degenerate"] = degenerate(predictions)
        if self.read_slots is not None and any(self.slots):
            guesses = [self.read_slots(prediction) if truth else {} for prediction, truth in zip(predictions, self.slots, strict=True)]
            scores |= {SLOT + name: of_slot for name, of_slot in slot_scores(self.slots, guesses).items()}
        return {name: values for name, values in scores.items() if name != "modifier_jaccard" or not np.isnan(values).all()}

    def _bleu(self, statistics: NDArray[np.float64]) -> dict[str, Estimate]:
        totals = self.units.totals(statistics)
        whole, drawn = bleu(totals.sum(0)), bleu(self.units.resampled(totals))
        about = {"count": len(statistics), "units": self.units.count}
        intervals = [interval(drawn[:, number], self.units.count) for number in range(4)]
        return {name: Estimate(float(whole[number]), *intervals[number], **about) for number, name in enumerate(BLEU_NAMES)}

    def differences(self, one: Judgement, other: Judgement) -> dict[str, Estimate]:
        """How much more `one` has than `other`, image by image, with intervals: by the same draws of units for both."""
        shared = [name for name in one.scores if name in other.scores]
        each = {name: one.scores[name] - other.scores[name] for name in shared}
        found = mean_estimates(each, self.units, shares=_shares(shared), differences=True)
        sides = [self.units.totals(side.bleu_statistics) for side in (one, other)]
        whole = bleu(sides[0].sum(0)) - bleu(sides[1].sum(0))
        drawn = bleu(self.units.resampled(sides[0])) - bleu(self.units.resampled(sides[1]))
        about = {"count": len(one.bleu_statistics), "units": self.units.count}
        for number, name in enumerate(BLEU_NAMES):
            found[name] = Estimate(float(whole[number]), *interval(drawn[:, number], self.units.count), **about)
        return _ordered(found)

    def extremes(self) -> dict[str, tuple[float, float]]:
        """What each metric gives on these images to another image's prompt, and to a true one: no metric's scale means the same on all data."""
        true = [prompts[0] for prompts in self.references]
        others = self.others()
        low, high = ({name: float(np.nanmean(values)) for name, values in self.score(texts).items()} for texts in (others, true))
        for side, texts in ((low, others), (high, true)):
            side |= dict(zip(BLEU_NAMES, bleu(bleu_statistics(self.references, texts).sum(0)).tolist(), strict=True))
        return {name: (low[name], high[name]) for name in (*_ordered(dict.fromkeys(high, 0)),) if name in low}

    def sentence(self, predictions: Sequence[str]) -> Scores:
        """How near texts are to the prompts: sentence similarity, or token F1 without a sentence model."""
        return self.similarity(self.references, predictions) if self.similarity is not None else token_f1(self.references, predictions)

    def others(self) -> list[str]:
        """For each image the prompt of another one, of another unit where there is one."""
        count, units = len(self.references), self.units.of_image
        found = []
        for place in range(count):
            step = next((step for step in range(1, count) if units[(place + step) % count] != units[place]), 0)
            found.append(self.references[(place + step) % count][0])
        return found


def _shares(names: Iterable[str]) -> frozenset[str]:
    """Those that are 1 or 0 of each image."""
    return frozenset(name for name in names if name in SHARES or name.startswith(SLOT))


def _ordered(found: Mapping[str, object]) -> dict:
    """As they are read: meaning, words, parts, the text itself."""
    first = ("similarity", "subject_similarity", "modifier_jaccard", "cider_d", *reversed(BLEU_NAMES), "rouge_l", "token_f1", "exact_match")
    return {name: found[name] for name in (*first, *found) if name in found}
