"""The command `reprompt`: all of Reprompt's commands under one name, from any directory.

reprompt caption FOLDER --sidecar .txt        is python caption.py FOLDER --sidecar .txt
reprompt COMMAND --help                       teaches each
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# of each command what Python runs, and what it does
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "caption": ((str(ROOT / "caption.py"),), "write the prompts of pictures and folders"),
    "app": ((str(ROOT / "app.py"),), "a page in the browser"),
    "generate": ((str(ROOT / "generate_data.py"),), "render prompts into pairs"),
    "import": (("-m", "data.importers"), "take pictures that carry their prompts into pairs"),
    "audit": (("-m", "data.audit"), "prove that no prompt of one split is nearly in another"),
    "preview": (("-m", "data.preview"), "show a data set on one page"),
    "score": ((str(ROOT / "score.py"),), "score how well prompts fit their images"),
    "train": ((str(ROOT / "train.py"),), "train on pairs"),
    "certainty": (("-m", "inference.certainty"), "find out how sure a checkpoint may be, and which pictures it knows"),
    "evaluate": ((str(ROOT / "evaluate.py"),), "measure a checkpoint beside others"),
}


def usage() -> str:
    return f"{__doc__}\nCommands:\n" + "".join(f"    {name:10} {about}\n" for name, (_, about) in COMMANDS.items())


def main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        sys.exit(f"reprompt: there is no command {name!r}; there are {', '.join(COMMANDS)}")
    command = [sys.executable, *COMMANDS[name][0], *arguments]
    # `python -m` looks for its modules where it is run, or where it is told to
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    if os.name == "posix":
        os.execv(sys.executable, command)
    sys.exit(subprocess.call(command))


if __name__ == "__main__":
    main()
