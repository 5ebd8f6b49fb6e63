"""How a run is stopped, and gone on with."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType

_SCRIPT = "train.py"


def resume_command() -> str:
    """What was typed, to go on; of a launcher its options are not known."""
    given = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--no-resume")]
    script = sys.argv[0] if Path(sys.argv[0]).name == _SCRIPT else _SCRIPT
    launcher = ["python"]
    if any(name.startswith("ACCELERATE_") for name in os.environ):
        launcher = ["accelerate launch"]
    elif "LOCAL_WORLD_SIZE" in os.environ:
        launcher = ["torchrun"]
    options = ["OPTIONS AS BEFORE"] if launcher[0] != "python" else []
    return " ".join([*launcher, *options, shlex.join([script, *given, "--resume"])])


class StopRequest:
    """Inside the `with` block Ctrl-C and SIGTERM let the running step finish; a second one ends the process at once."""

    def __enter__(self) -> StopRequest:
        self.asked = False
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)
        print("\nfinishing this step, then saving ...", file=sys.stderr)
