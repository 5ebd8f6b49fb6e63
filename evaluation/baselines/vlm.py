"""A vision-language model behind the chat API that OpenAI, vLLM, Ollama, llama.cpp and others speak."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data.files import write_text
from evaluation.captioners import About, Caption, CaptionerError
from evaluation.config import VlmConfig
from evaluation.provenance import without_password

_SIDE = 1024  # pixels of a picture's longer side as it is sent
_MILLION = 1_000_000


@dataclass
class Spending:
    """What a command has spent on all models it asked, for a limit that holds for them together."""

    dollars: float = 0.0


class VisionLanguageModel:
    """Asks a model for the prompt of each picture, several at a time. Answers are kept; the key is in no message and no file."""

    def __init__(self, model: str, config: VlmConfig, *, count: int, spending: Spending | None = None, processes: int = 1) -> None:
        """
        Args:
            model: its name in the API.
            count: pictures that will be asked about, for the estimate.
            spending: what this command has spent on other models.
            processes: how many share the pictures, and so the limit.

        Raises:
            CaptionerError: no client, no key, no template, or an estimate above the limit; nothing has been sent.
        """
        try:
            import openai
        except ImportError as error:
            raise CaptionerError(f"the baseline 'vlm' needs the extra 'eval' ({error}): pip install -e '.[eval]'") from error
        self.openai = openai
        self.model, self.config = model, config
        self._key = os.environ.get(config.key_variable, "")
        base_url = config.base_url or os.environ.get("OPENAI_BASE_URL")
        if not self._key and base_url is None:
            raise CaptionerError(
                f"set the environment variable {config.key_variable}, or name a server of yours: --vlm.base-url http://localhost:8000/v1"
            )
        try:
            text = config.template.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CaptionerError(f"--vlm.template {config.template} cannot be read: {error}") from error
        if not text:
            raise CaptionerError(f"--vlm.template {config.template} is empty")
        above, line, below = text.partition("\n---\n")
        self._system, self._question = (above, below) if line else ("", text)
        self.client = openai.OpenAI(api_key=self._key or "none", base_url=base_url, timeout=config.timeout, max_retries=config.retries)
        self._where = without_password(str(self.client.base_url))
        asked = {"model": model, "base_url": self._where, "system": self._system, "question": self._question, "max_tokens": config.max_tokens}
        self._asked = json.dumps(asked, sort_keys=True)
        self._spent = 0.0
        self._spending, self._limit = spending or Spending(), config.max_dollars / processes
        self._lock = threading.Lock()
        self._sent = config.image_tokens + len(text) // 4  # tokens, about
        estimate = count * self._cost(self._sent, config.max_tokens // 4)
        priced = f"about ${estimate:.2f}, at most ${config.max_dollars:.2f}" if estimate else "no prices given"
        print(f"vlm={model} at {self._where}: {count} pictures, {priced}; answers are kept in {config.cache}", file=sys.stderr)
        if estimate > config.max_dollars:
            raise CaptionerError(
                f"{count} pictures would cost about ${estimate:.2f}, more than --vlm.max-dollars {config.max_dollars:g}; nothing was sent. "
                "Give a higher limit, or a lower --limit"
            )

    @property
    def about(self) -> About:
        settings = {"max_tokens": self.config.max_tokens, "temperature": 0, "template": str(self.config.template)}
        digest = hashlib.sha256(self._asked.encode()).hexdigest()[:16]
        return About(
            source=f"{self.model} at {self._where}",
            fingerprint=digest,
            precision="as the server has it",
            settings=settings,
            batch_size=self.config.requests,
            cost=self._spent,
        )

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        """
        Raises:
            CaptionerError: a picture has no answer after all retries, or the limit is reached; what was answered is kept.
        """
        with ThreadPoolExecutor(self.config.requests) as pool:
            waiting = [pool.submit(self._answer, image) for image in images]
            failures = [failure for one in waiting if (failure := one.exception()) is not None]
        if failures:
            raise failures[0]
        return [Caption(one.result()) for one in waiting]

    def _answer(self, image: Image.Image) -> str:
        picture = _png(image)
        name = hashlib.sha256(self._asked.encode() + picture).hexdigest()
        path = self.config.cache / name[:2] / f"{name}.json"
        if (kept := _kept(path)) is not None:
            return kept
        text, usage = self._asked_again(picture)
        write_text(path, json.dumps({"text": text, "model": self.model, **usage}, ensure_ascii=False) + "\n")
        return text

    def _asked_again(self, picture: bytes) -> tuple[str, dict[str, int]]:
        """The client itself tries again after errors and full queues; an answer without a text is asked for again here."""
        last = ""
        for _ in range(1 + self.config.retries):
            with self._lock:
                if self._spending.dollars >= self._limit and self._cost(1, 1) > 0:
                    raise CaptionerError(
                        f"--vlm.max-dollars {self.config.max_dollars:g} is spent (${self._spending.dollars:.2f} by this process); answers so "
                        "far are kept: the same command goes on, and may spend as much again"
                    )
            try:
                found = self.client.chat.completions.create(
                    model=self.model, messages=self._messages(picture), max_tokens=self.config.max_tokens, temperature=0
                )
            except self.openai.OpenAIError as error:
                raise CaptionerError(self._without_key(f"{self.model}: {type(error).__name__}: {error}; answers so far are kept")) from error
            except (ValueError, TypeError, AttributeError) as error:  # an answer that is no JSON, or not of the API
                last = f"{type(error).__name__}: {error}"
                continue
            usage = getattr(found, "usage", None)
            counts = {name: int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens")}
            if not any(counts.values()):  # a server that does not count: as in the estimate, and of the answer the most
                counts = {"prompt_tokens": self._sent, "completion_tokens": self.config.max_tokens}
            with self._lock:
                cost = self._cost(counts["prompt_tokens"], counts["completion_tokens"])
                self._spent += cost
                self._spending.dollars += cost
            text = _text_of(found)
            if text is not None:
                return text, counts
            last = "an answer without a text"
        raise CaptionerError(self._without_key(f"{self.model} gave no usable answer in {1 + self.config.retries} tries; the last: {last}"))

    def _messages(self, picture: bytes) -> list[Any]:
        url = "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
        content = [{"type": "text", "text": self._question}, {"type": "image_url", "image_url": {"url": url}}]
        system = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, {"role": "user", "content": content}]

    def _cost(self, sent: int, answered: int) -> float:
        return (sent * self.config.input_price + answered * self.config.output_price) / _MILLION

    def _without_key(self, text: str) -> str:
        """Servers quote keys in their errors, whole or in part."""
        for length in (len(self._key), 12):
            if len(self._key) >= 8 and length:
                text = text.replace(self._key[:length], "***").replace(self._key[-length:], "***")
        return text


def _text_of(found: Any) -> str | None:
    """One line, without the quotation marks that models like to add."""
    choices = getattr(found, "choices", None)
    content = getattr(getattr(choices[0], "message", None), "content", None) if choices else None
    if not isinstance(content, str) or not content.strip():
        return None
    line = " ".join(content.split())
    return line[1:-1].strip() if len(line) > 2 and line[0] == line[-1] and line[0] in "\"'`" else line


def _kept(path: Path) -> str | None:
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["text"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) else None


def _png(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    factor = max(small.size) / _SIDE
    if factor > 1:
        small = small.resize((math.ceil(small.width / factor), math.ceil(small.height / factor)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
