"""The embedded world and the Stable Diffusion that paints it."""

from pathlib import Path

MINI = "mini"  # its name, beside the ids of the Hub
MINI_DIRECTORY = Path(__file__).resolve().parents[2] / "assets" / "mini-diffusion"
