"""A page in the browser: drop a picture, read its prompt, see where the model looks for each word, paint it again.

Examples:
    python app.py
    python app.py --checkpoint runs/mini/model --port 8000
    python app.py --compare mini-blip mini-git                a tab where others write beside ours
    python app.py --mcp                                       for agents too (extra 'mcp'): http://127.0.0.1:7860/gradio_api/mcp/

It works with the network off, sends nothing anywhere, and is seen on this machine alone unless --host says otherwise. Programs use the same address
(gradio_client: predict, attention, paint, caption_files, compare; docs/PAGE.md).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from data.console import begin_command, check_least, read_command_line
from inference import DEFAULT_CHECKPOINT

BENCHMARK = Path(__file__).resolve().parent / "assets" / "mini-benchmark"


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """Which model to serve, and where."""

    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id, ours or a BLIP or GIT of Hugging Face; the model in the box by default."""
    revision: str | None = None
    """Of a Hub id: a branch, a tag or a commit."""
    paint: str = "mini"
    """What "Make it again" paints with: mini (the embedded model), a directory or Hub id of diffusers; "" leaves it out."""
    compare: tuple[str, ...] = ()
    """Baselines for the tab "Compare", as evaluate.py has them: blip, git, mini-blip, mini-git, blip=DIR, nearest=TIMM, vlm=MODEL and so on."""
    data: str = str(BENCHMARK)
    """Whose training pairs the baselines nearest and constant know."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0 lets other machines in."""
    port: int = 7860
    mcp: bool = False
    """Serve the page's functions to agents too, by the Model Context Protocol."""

    def __post_init__(self) -> None:
        check_least(1, port=self.port)
        if self.port > 65535:
            raise ValueError(f"--port must be 1 to 65535, not {self.port}")


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(AppConfig, __doc__)

from functools import partial
from importlib.util import find_spec

from data.errors import MissingExtraError, ShardError
from data.sources.opening import open_splits
from evaluation.baselines import Known, Settings, build_baseline, check_names
from inference import load_inverter
from model import CheckpointError
from page.reader import Reader

MOST_UPLOADED = "64mb"  # of one file


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


def check_extras(config: AppConfig) -> None:
    """
    Raises:
        MissingExtraError: a library that is asked for is not installed; names the extra.
    """
    wanted = [("gradio", "app", "the web page"), *([("mcp", "mcp", "--mcp")] if config.mcp else [])]
    for library, extra, what in wanted:
        if find_spec(library) is None:
            raise MissingExtraError(f"{what} needs the extra '{extra}' (there is no {library}): pip install -e '.[{extra}]'")


def build_reader(config: AppConfig) -> Reader:
    inverter = load_inverter(config.checkpoint, revision=config.revision)
    settings = Settings(known=Known(lambda: open_splits(config.data)["train"]), count=1, device=inverter.device)
    paint = config.paint if config.paint and find_spec("diffusers") is not None else ""
    if config.paint and not paint:
        print("'Make it again' is left out: it needs the extra 'generate': pip install -e '.[generate]'", file=sys.stderr)
    return Reader(inverter, paint, {name: partial(build_baseline, name, settings) for name in config.compare})


def main(config: AppConfig) -> None:
    check_extras(config)
    try:
        check_names(config.compare)
    except ValueError as error:
        raise ValueError(str(error).replace("--baseline", "--compare")) from error
    check_address(config.host, config.port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from page import style
    from page.layout import build_page

    page = build_page(build_reader(config), name=config.checkpoint.rstrip("/").rpartition("/")[2])
    host = f"[{config.host}]" if ":" in config.host else config.host
    print(f"Reprompt is at http://{host}:{config.port} (Ctrl-C ends it)")
    page.launch(
        server_name=host,
        server_port=config.port,
        mcp_server=config.mcp,
        max_file_size=MOST_UPLOADED,
        theme=style.theme(),
        css=style.CSS,
        js=style.SCRIPT,
        footer_links=["api"],
        ssr_mode=False,
        share=False,
        quiet=True,
    )


if __name__ == "__main__":
    begin_command()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads are removed however it ends
    try:
        main(CONFIG)
    except (CheckpointError, MissingExtraError, OSError, ShardError, ValueError) as error:
        sys.exit(f"app.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\napp.py: stopped")
