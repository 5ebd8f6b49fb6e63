"""A web page: drop a picture, read its prompt.

Examples:
    python app.py
    python app.py --checkpoint runs/mini/model --port 8000
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from data.console import begin_command, check_least, read_command_line
from inference import DEFAULT_CHECKPOINT


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


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(AppConfig, __doc__)

from data.errors import ImageError, MissingExtraError
from inference import PromptInverter
from model import CheckpointError, NotFiniteError

ALTERNATIVES = 2


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
            best = inverter.predict([picture], num_beams=num_beams, num_return_sequences=min(1 + ALTERNATIVES, num_beams))[0]
        except (ImageError, NotFiniteError) as error:
            raise gradio.Error(str(error).replace(f"{Path(picture).parent}{os.sep}", "")) from error  # without the place of the upload
        return best.prompt, [[text, round(score, 3)] for text, score, _ in best.alternatives]

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


def check_address(host: str, port: int) -> None:
    """
    Raises:
        OSError: nobody can listen there; before a model is loaded.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
        raise OSError(f"cannot listen at {host}:{port} ({reason}); give another --port, or --host of this machine") from error


def main(config: AppConfig) -> None:
    check_address(config.host, config.port)
    page = build_page(PromptInverter.from_pretrained(config.checkpoint, revision=config.revision), config.num_beams)
    page.launch(server_name=config.host, server_port=config.port)


if __name__ == "__main__":
    begin_command()
    try:
        main(CONFIG)
    except (CheckpointError, MissingExtraError, OSError, ValueError) as error:
        sys.exit(f"app.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\napp.py: stopped")
