"""A web page: drop a picture, read its prompt.

Examples:
    python app.py
    python app.py --checkpoint runs/mini/model --port 8000
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import tyro
from PIL import Image

from inference import PromptInverter
from inference.inverter import DEFAULT_CHECKPOINT
from model import CheckpointError


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """Which model to serve, and where."""

    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id; the model in the box by default."""
    num_beams: int = 4
    host: str = "127.0.0.1"
    port: int = 7860


def main(config: AppConfig) -> None:
    try:
        import gradio
    except ImportError as error:
        raise RuntimeError(f"the web page needs the extra 'app' ({error}): pip install -e '.[app]'") from error
    inverter = PromptInverter.from_pretrained(config.checkpoint)

    def invert(image: Image.Image | None) -> tuple[str, list[list[object]]]:
        if image is None:
            return "", []
        best = inverter.predict([image], num_beams=config.num_beams, num_return=min(3, config.num_beams))[0]
        return best.prompt, [[text, round(score, 3)] for text, score in best.alternatives]

    page = gradio.Interface(
        invert,
        inputs=gradio.Image(type="pil", label="Picture"),
        outputs=[
            gradio.Textbox(label="Prompt", buttons=["copy"]),
            gradio.Dataframe(headers=["alternative", "mean log-probability"], label="Alternatives"),
        ],
        title="Reprompt",
        description="The prompt behind a generated picture.",
        flagging_mode="never",
        analytics_enabled=False,
    )
    page.launch(server_name=config.host, server_port=config.port)


if __name__ == "__main__":
    try:
        main(tyro.cli(AppConfig, description=__doc__))
    except (CheckpointError, OSError, RuntimeError) as error:
        sys.exit(f"app.py: {error}")
