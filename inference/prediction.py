"""What is written for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from model.confidence import Confidence

UNFAMILIAR = 0.005  # of the pictures like those that a network was trained on so many are called unlike them
NOT_FAMILIAR = "unlike anything this model was trained on; the prompt is a guess"


class Token(NamedTuple):
    """A piece of a prompt, its log-probability (natural log, the network's own) and how likely it is right where all before it is, 0 to 1."""

    text: str
    log_prob: float
    confidence: float


class Candidate(NamedTuple):
    """A further prompt; as `Prediction`, and the log-probability of all of it, label smoothing undone."""

    prompt: str
    score: float
    confidence: float
    log_prob: float


@dataclass(frozen=True)
class Prediction:
    """What Reprompt wrote for a picture.

    Attributes:
        score: the mean log-probability of its tokens, natural log, the network's own.
        confidence: the probability that the prompt is right, word for word: label smoothing undone, scaled as validation pairs said
            (`model.confidence`).
        familiarity: the share of pictures like those that the network was trained on that are no more like them than this one (`model.familiarity`);
            None where the checkpoint does not say.
        alternatives: further prompts, best first: in the order of a search's ranking, which is that of the scores where `length_penalty` is 1.
        tokens: the pieces of text written, after the forced start if there was one: joined they are the text; a character of several tokens belongs
            to its last one.
        log_prob: of all of it, label smoothing undone.
    """

    prompt: str
    score: float
    confidence: float
    familiarity: float | None = None
    alternatives: list[Candidate] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    log_prob: float = 0.0

    @property
    def log_probs(self) -> list[float]:
        """Of the tokens, the network's own."""
        return [token.log_prob for token in self.tokens]

    @property
    def is_familiar(self) -> bool:
        """Whether the network may know what it speaks of; True where the checkpoint does not say."""
        return self.familiarity is None or self.familiarity >= UNFAMILIAR


def build_prediction(
    prompts: Sequence[str], log_probs: Sequence[Sequence[float]], pieces: Sequence[str], confidence: Confidence, familiarity: float | None
) -> Prediction:
    """
    Args:
        prompts: best first.
        log_probs: of the tokens of each.
        pieces: of the first one's text, for each of its tokens.
    """
    undone = [confidence.without_smoothing(each) for each in log_probs]
    means = [sum(each) / max(1, len(each)) for each in log_probs]
    candidates = [Candidate(prompt, mean, confidence.of_text(own), sum(own)) for prompt, mean, own in zip(prompts, means, undone, strict=True)]
    tokens = [Token(piece, each, confidence.of_piece([own])) for piece, each, own in zip(pieces, log_probs[0], undone[0], strict=True)]
    best = candidates[0]
    return Prediction(best.prompt, best.score, best.confidence, familiarity, candidates[1:], tokens, best.log_prob)
