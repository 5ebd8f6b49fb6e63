"""What baselines can be told. Nothing heavy is imported here: a command that prints its help needs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data.console import check_finite, check_least

_BASELINES = Path(__file__).parent / "baselines"
PHRASES, TEMPLATE = _BASELINES / "phrases", _BASELINES / "vlm_prompt.txt"


@dataclass(frozen=True, kw_only=True)
class InterrogatorConfig:
    """Of the baseline `interrogator`."""

    caption: str = "blip"
    """The baseline that writes the captions which phrases are chained onto, by name: blip, mini-blip, git=DIR ..."""
    lists: Path = PHRASES
    """A directory of .txt files with a phrase on each line, such as clip-interrogator's; by default small lists of our own."""
    min_phrases: int = 8
    """So many are chained on whether they help or not: a later one may make up for it."""
    max_phrases: int = 32
    """So many at most."""
    candidates: int = 2048
    """Phrases that are tried in the chain, the best for the picture by themselves."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_phrases <= self.max_phrases or self.candidates < 1:
            raise ValueError("--interrogator: min-phrases is 0 to max-phrases, candidates 1 or more")


@dataclass(frozen=True, kw_only=True)
class VlmConfig:
    """Of the baseline `vlm=MODEL`."""

    base_url: str | None = None
    """Where the API is, for example http://localhost:8000/v1; by default OpenAI's, or what the environment variable OPENAI_BASE_URL says."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key. It is sent to --vlm.base-url and written nowhere."""
    template: Path = TEMPLATE
    """A file with what the model is told beside the picture; what stands above a line --- is the system's part. By default a question without
    examples."""
    max_tokens: int = 200
    """Of an answer."""
    requests: int = 4
    """On their way at a time."""
    retries: int = 5
    """After errors of the server, full queues, timeouts and answers without a text, each time later."""
    timeout: float = 120.0
    """Seconds that an answer may take."""
    input_price: float = 0.0
    """Dollars for a million tokens of what is sent; as the provider says."""
    output_price: float = 0.0
    """Dollars for a million tokens of answers."""
    image_tokens: int = 1000
    """Tokens that a picture is reckoned with in the estimate; what the server counts is what is charged."""
    max_dollars: float = 1.0
    """Spend at most so much: nothing is sent where the estimate is above it, and nothing more once it is reached."""
    cache: Path = Path("runs/vlm")
    """A directory that keeps every answer, so that none is asked and paid for twice."""

    def __post_init__(self) -> None:
        dollars = {f"vlm.{name}": getattr(self, name) for name in ("input_price", "output_price", "max_dollars")}
        check_least(1, **{f"vlm.{name}": getattr(self, name) for name in ("max_tokens", "requests", "image_tokens")})
        check_least(0, **{"vlm.retries": self.retries}, **dollars)
        check_finite(**{"vlm.timeout": self.timeout}, **dollars)
        if self.timeout <= 0:
            raise ValueError(f"--vlm.timeout must be above 0, not {self.timeout}")
