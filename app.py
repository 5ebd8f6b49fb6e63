"""A web page: drop a picture, read its prompt.

Examples:
    python app.py
    python app.py --checkpoint runs/mini/model --port 8000
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # Ctrl-C while libraries are imported ends the process
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import tyro

from data.console import begin_command, check_least
from data.errors import ImageError, MissingExtraError
from inference import PromptInverter
from inference.inverter import DEFAULT_CHECKPOINT
from model import CheckpointError, NotFiniteError

ALTERNATIVES = 2


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """Which model to serve, and where."""

    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id; the model in the box by default."""
    revision: str | None = None
    """Of a Hub id: a branch, a tag or a commit."""
    num_beams: int = 4
    """Hypotheses kept while searching for the likeliest prompt."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0 lets other machines in."""
    port: int = 7860

    def __post_init__(self) -> None:
        check_least(1, num_beams=self.num_beams, port=self.port)
        if self.port > 65535:
            raise ValueError(f"--port must be 1 to 65535, not {self.port}")


def build_page(inverter: PromptInverter, num_beams: int) -> Any:
    """The page, a `gradio.Interface`.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError(f"the web page needs the extra 'app' ({error}): pip install -e '.[app]'") from error

    def invert(picture: str | None) -> tuple[str, list[list[object]]]:
        if picture is None:
            return "", []
        try:
            best = inverter.predict([picture], num_beams=num_beams, num_return=min(1 + ALTERNATIVES, num_beams))[0]
        except (ImageError, NotFiniteError) as error:
            raise gradio.Error(str(error).replace(f"{Path(picture).parent}{os.sep}", "")) from error  # without the place of the upload
        return best.prompt, [[text, round(score, 3)] for text, score in best.alternatives]

    return gradio.Interface(
        invert,
        inputs=gradio.Image(type="filepath", image_mode=None, label="Picture"),  # the file as it is: caption.py's reader reads it
        outputs=[
            gradio.Textbox(label="Prompt", buttons=["copy"]),
            gradio.Dataframe(headers=["alternative", "mean log-probability"], label="Alternatives"),
        ],
        title="Reprompt",
        description="The prompt behind a generated picture.",
        flagging_mode="never",
        analytics_enabled=False,
    )


def main(config: AppConfig) -> None:
    page = build_page(PromptInverter.from_pretrained(config.checkpoint, revision=config.revision), config.num_beams)
    page.launch(server_name=config.host, server_port=config.port)


if __name__ == "__main__":
    begin_command()
    try:
        main(tyro.cli(AppConfig, description=__doc__))
    except (CheckpointError, MissingExtraError, OSError, ValueError) as error:
        sys.exit(f"app.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\napp.py: stopped")
