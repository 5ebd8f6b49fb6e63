"""How many of the words are right: one number an image, given all of its prompts (references); COCO's captioning metrics by pycocoevalcap's scorers,
of which none here needs Java, on the words of `evaluation.words`.

A reference is never empty: readers leave such pairs out and count them. An empty prediction is the worst there is by every metric.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import MissingExtraError
from evaluation.words import words

Scores = NDArray[np.float64]
References = Sequence[Sequence[str]]  # of each image one prompt or several
INVENTED = "invented"
BLEU_STATISTICS = 10  # matches and n-grams of one to four words, and the lengths of prediction and nearest reference


def exact_match(references: References, predictions: Sequence[str]) -> Scores:
    """1 where a prediction and one of the prompts are the same but for case, white space and Unicode's forms (NFC)."""

    def plain(text: str) -> list[str]:
        return unicodedata.normalize("NFC", text.casefold()).split()

    each = zip(references, predictions, strict=True)
    return np.array([float(any(plain(prompt) == plain(prediction) for prompt in prompts)) for prompts, prediction in each])


def token_f1(references: References, predictions: Sequence[str]) -> Scores:
    """Harmonic mean of precision and recall over words, counted as often as they occur (SQuAD, arXiv 1606.05250, section 6.1); the best over the
    references, as there."""
    return np.array(
        [max(_f1(Counter(words(prompt)), Counter(words(prediction))) for prompt in prompts) for prompts, prediction in _each(references, predictions)]
    )


def _f1(truth: Counter[str], guess: Counter[str]) -> float:
    shared = sum((truth & guess).values())
    return 2 * shared / (truth.total() + guess.total()) if shared else float(truth == guess)


def rouge_l(references: References, predictions: Sequence[str]) -> Scores:
    """ROUGE-L as COCO's evaluation has it: the longest common subsequence of words, the best precision and the best recall over the references, and
    recall counting 1.2 times as much."""
    try:
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise _missing(error) from error
    scorer = Rouge()
    return np.array(
        [scorer.calc_score([_joined(prediction)], [_joined(prompt) for prompt in prompts]) for prompts, prediction in _each(references, predictions)]
    )


class CiderD:
    """CIDEr-D (arXiv 1411.5726, section 4) with document frequencies from the references themselves, counted once for all captioners. 10 is the most;
    what a perfect answer gets depends on the references: less where an image has several, or prompts are shorter than four words or all alike."""

    def __init__(self, references: References) -> None:
        try:
            from pycocoevalcap.cider.cider_scorer import CiderScorer, cook_refs, cook_test
        except ImportError as error:
            raise _missing(error) from error
        self._cook_test = cook_test
        self._scorer: Any = CiderScorer()
        self._scorer.crefs = _Cooked([[_joined(prompt) for prompt in prompts] for prompts in references], cook_refs)
        self._scorer.compute_doc_freq()
        self._scorer.document_frequency = _Frequencies(self._scorer.document_frequency)

    def __call__(self, predictions: Sequence[str]) -> Scores:
        self._scorer.ctest = _Cooked([_joined(prediction) for prediction in predictions], self._cook_test)
        if len(self._scorer.ctest) != len(self._scorer.crefs):
            raise ValueError(f"{len(predictions)} predictions for {len(self._scorer.crefs)} images")
        return np.asarray(self._scorer.compute_cider(), dtype=np.float64)


class _Cooked:
    """Texts whose n-grams are counted when they are asked for: those of 100,000 prompts at once take gigabytes."""

    def __init__(self, texts: Sequence[Any], cook: Callable[[Any], Any]) -> None:
        self.texts = texts
        self.cook = cook

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[Any]:
        return map(self.cook, self.texts)


class _Frequencies(dict[Any, float]):
    """Does not grow by being asked for what it has not, as a defaultdict does."""

    def __missing__(self, key: Any) -> float:
        return 0.0


def bleu_statistics(references: References, predictions: Sequence[str]) -> NDArray[np.float64]:
    """What BLEU sums up over a corpus, (N, 10): matches of one to four words, n-grams of one to four, length, and the nearest reference's."""
    try:
        from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test
    except ImportError as error:
        raise _missing(error) from error
    rows = []
    for prompts, prediction in _each(references, predictions):
        cooked = cook_test(_joined(prediction), cook_refs([_joined(prompt) for prompt in prompts]), eff="closest")
        rows.append([*cooked["correct"], *cooked["guess"], cooked["testlen"], cooked["reflen"]])
    return np.array(rows, dtype=np.float64).reshape(-1, BLEU_STATISTICS)


def bleu(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """BLEU-1 to BLEU-4 of corpora (Papineni et al., ACL 2002, section 2.3) from their summed statistics: (..., 10) -> (..., 4), as pycocoevalcap's
    `BleuScorer` works it out, small numbers in the place of zeros included."""
    tiny, small = 1e-15, 1e-9
    precisions = (statistics[..., :4] + tiny) / (statistics[..., 4:8] + small)
    means = np.exp(np.log(precisions).cumsum(-1) / np.arange(1, 5))
    ratio = (statistics[..., 8:9] + tiny) / (statistics[..., 9:10] + small)
    with np.errstate(over="ignore"):
        return means * np.exp(np.minimum(0.0, 1 - 1 / ratio))


def slot_scores(truths: Sequence[Mapping[str, str]], guesses: Sequence[Mapping[str, str]]) -> dict[str, Scores]:
    """For each slot 1 where it was recovered and 0 where not, over the images whose prompt has it, NaN over the others: the same images for all
    captioners. `INVENTED` is 1 where a slot was written that the prompt does not have."""
    names = dict.fromkeys(name for truth in truths for name, value in truth.items() if value)
    found = {
        name: np.array(
            [float(truth[name] == guess.get(name, "")) if truth.get(name) else math.nan for truth, guess in zip(truths, guesses, strict=True)]
        )
        for name in names
    }
    if found:
        invented = [any(value and not truth.get(name) for name, value in guess.items()) for truth, guess in zip(truths, guesses, strict=True)]
        known = [bool(truth) for truth in truths]
        found[INVENTED] = np.where(known, np.array(invented, dtype=np.float64), math.nan)
    return found


def _each(references: References, predictions: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    return zip(references, predictions, strict=True)


def _joined(text: str) -> str:
    return " ".join(words(text))


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(f"this metric needs the extra 'eval' ({error}): pip install -e '.[eval]'")
