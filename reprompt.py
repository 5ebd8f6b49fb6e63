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
# of each command the file or module that Python runs, and what it does
COMMANDS: dict[str, tuple[str, str]] = {
    "caption": ("caption.py", "write the prompts of pictures and folders"),
    "app": ("app.py", "a page in the browser"),
    "generate": ("generate_data.py", "render prompts into pairs"),
    "import": ("data.importers", "take pictures that carry their prompts into pairs"),
    "audit": ("data.audit", "prove that no prompt of one split is nearly in another"),
    "preview": ("data.preview", "show a data set on one page"),
    "score": ("score.py", "score how well prompts fit their images"),
    "train": ("train.py", "train on pairs"),
    "certainty": ("inference.certainty", "find out how sure a checkpoint may be, and which pictures it knows"),
    "export": ("export.py", "write a checkpoint as ONNX graphs"),
    "evaluate": ("evaluate.py", "measure a checkpoint beside others"),
}
# `python -m` would take modules of the same name where it is run before ours
_MODULE = f"import runpy, sys; sys.path[:1] = [{str(ROOT)!r}]; del sys.argv[0]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


def usage() -> str:
    return f"{__doc__}\nCommands:\n" + "".join(f"    {name:10} {about}\n" for name, (_, about) in COMMANDS.items())


def main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        sys.exit(f"reprompt: there is no command {name!r}; there are {', '.join(COMMANDS)}")
    program = COMMANDS[name][0]
    command = [sys.executable, *([str(ROOT / program)] if program.endswith(".py") else ["-c", _MODULE, program]), *arguments]
    if os.name == "posix":
        os.execv(sys.executable, command)
    sys.exit(subprocess.call(command))


if __name__ == "__main__":
    main()
