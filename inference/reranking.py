"""Better prompts at decoding time: many are drawn for a picture, and the one is kept that something else than the network's likelihood finds best.

Bayes risk   what the network means rather than how it phrases it: the prompt nearest in meaning to all that were drawn (minimum Bayes risk decoding:
             Kumar and Byrne, NAACL 2004; Eikema and Aziz, arXiv 2005.10283), which is the expected sentence similarity, the measure that prompts are
             judged by
CLIP         the prompt that a CLIP finds to fit the picture, weighed with how likely the network holds it
rendering    the prompt that a diffusion model paints similar pictures from, weighed likewise
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from PIL import Image

from data.embeddings import SentenceEncoder
from diffusion.painting import Render
from inference.inverter import PromptInverter
from inference.options import Decoding
from inference.pictures import Picture, as_picture, check_several
from inference.prediction import Candidate, Prediction
from peers.clip import Clip

CANDIDATES = 16
_SEED = 0


@dataclass(frozen=True)
class Pool:
    """Different prompts for a picture, likeliest first."""

    candidates: Sequence[Candidate]

    @property
    def prompts(self) -> list[str]:
        return [candidate.prompt for candidate in self.candidates]

    @property
    def log_probs(self) -> np.ndarray:
        """Of each prompt, as if there were no others than these."""
        logs = np.array([candidate.log_prob for candidate in self.candidates])
        return logs - np.logaddexp.reduce(logs)


class Reranker(Protocol):
    """How good each prompt is for its picture; more is better."""

    def __call__(self, images: Sequence[Image.Image], pools: Sequence[Pool]) -> list[list[float]]: ...


@dataclass
class BayesRisk:
    """The expected similarity to the picture's prompt, which is one of these as likely as the network holds it.

    Attributes:
        encode: N texts -> (N, D) vectors of length 1; by default all-MiniLM-L6-v2.
    """

    encode: Callable[[Sequence[str]], np.ndarray] | None = None

    def __call__(self, images: Sequence[Image.Image], pools: Sequence[Pool]) -> list[list[float]]:
        if self.encode is None:
            self.encode = SentenceEncoder(bfloat16=True)
        texts = list(dict.fromkeys(prompt for pool in pools for prompt in pool.prompts))
        vectors = dict(zip(texts, self.encode(texts), strict=True))
        found = []
        for pool in pools:
            own = np.stack([vectors[prompt] for prompt in pool.prompts])
            found.append((own @ own.T @ np.exp(pool.log_probs)).tolist())
        return found


@dataclass
class ClipFit:
    """How likely a prompt is by the network and by a CLIP: the log-probability, and the cosine of picture and prompt in units of CLIP's own scale.

    Attributes:
        evidence: log-odds for a cosine that is greater by 1 (100 is where CLIP's training stops: arXiv 2103.00020, section 2.5).
    """

    clip: Clip
    evidence: float = 100.0

    def __call__(self, images: Sequence[Image.Image], pools: Sequence[Pool]) -> list[list[float]]:
        cosines = [np.array(self.clip([image] * len(pool.prompts), pool.prompts)) for image, pool in zip(images, pools, strict=True)]
        return [(pool.log_probs + self.evidence * near).tolist() for pool, near in zip(pools, cosines, strict=True)]


@dataclass
class Rendering:
    """How likely a prompt is by the network and by what is painted from it: the log-probability, and the mean cosine of the features of the picture
    and of those painted. (The cosines alone choose worse than the network does: two prompts that say the same paint as differently as two seeds.)

    Attributes:
        features: N pictures -> (N, D).
        evidence: log-odds for a cosine that is greater by 1, chosen on validation pairs of the embedded world.
        seeds: of the pictures painted from each prompt.
        most: prompts of a picture that are painted, the likeliest.
    """

    render: Render
    features: Callable[[Sequence[Image.Image]], np.ndarray]
    evidence: float = 200.0
    seeds: Sequence[int] = (1, 2)
    most: int = 6

    def __call__(self, images: Sequence[Image.Image], pools: Sequence[Pool]) -> list[list[float]]:
        asked = [(place, prompt, seed) for place, pool in enumerate(pools) for prompt in pool.prompts[: self.most] for seed in self.seeds]
        painted = self.render([prompt for _, prompt, _ in asked], [seed for _, _, seed in asked])
        originals, made = _of_length_one(self.features(images)), _of_length_one(self.features(painted))
        near = (made * originals[[place for place, _, _ in asked]]).sum(1).reshape(-1, len(self.seeds)).mean(1)
        each = iter((self.evidence * near).tolist())
        return [[float(log) + next(each) if number < self.most else -np.inf for number, log in enumerate(pool.log_probs)] for pool in pools]


def _of_length_one(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def reranked(
    inverter: PromptInverter, images: Iterable[Picture], reranker: Reranker, *, candidates: int = CANDIDATES, batch_size: int = 32, **decoding: Any
) -> list[Prediction]:
    """As `PromptInverter.predict`, with the prompt that the reranker finds best first. Its confidence is the network's own.

    Args:
        candidates: prompts drawn for each picture, those of the search beside.
        decoding: of `inference.Decoding`; do_sample, temperature, top_k, top_p and seed are of the drawing (by default each picture has the same
            draws every time), num_beams and length_penalty of the search.

    Raises:
        As `PromptInverter.predict`; ValueError: fewer than two candidates.
    """
    if candidates < 2:
        raise ValueError(f"candidates must be 2 or more, not {candidates}")
    check_several(images, batch_size)
    how = Decoding(**{"do_sample": True, "seed": _SEED} | decoding)
    drawing = replace(how, num_return_sequences=candidates)
    search: dict[str, Any] = {"num_beams": how.num_beams, "num_return_sequences": how.num_beams, "length_penalty": how.length_penalty}
    searching = Decoding(**how.lengths, **search, prefix=how.prefix, bad_words=how.bad_words)
    each, predictions = iter(images), list[Prediction]()
    while batch := [as_picture(image) for image in islice(each, batch_size)]:
        drawn = inverter.predict(batch, batch_size=batch_size, **vars(drawing))
        found = inverter.predict(batch, batch_size=batch_size, **vars(searching))
        pools = [_pool(*both) for both in zip(drawn, found, strict=True)]
        orders = [np.argsort([-value for value in values], kind="stable") for values in reranker(batch, pools)]
        best = [[pool.candidates[place] for place in order] for pool, order in zip(pools, orders, strict=True)]
        for own, assessed in zip(best, inverter.assess(batch, [own[0].prompt for own in best], batch_size=batch_size), strict=True):
            predictions.append(replace(assessed, prompt=own[0].prompt, alternatives=own[1 : how.num_return_sequences]))
    return predictions


def _pool(*predictions: Prediction) -> Pool:
    said = [candidate for prediction in predictions for candidate in (_first(prediction), *prediction.alternatives)]
    likeliest: dict[str, Candidate] = {}
    for candidate in sorted(said, key=lambda candidate: -candidate.log_prob):  # one text may have been spelled in other tokens
        likeliest.setdefault(candidate.prompt, candidate)
    return Pool(list(likeliest.values()))


def _first(prediction: Prediction) -> Candidate:
    return Candidate(prediction.prompt, prediction.score, prediction.confidence, prediction.log_prob)
