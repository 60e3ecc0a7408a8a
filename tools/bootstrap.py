"""Make `.venv` from the hashed lock, on a machine with Python and nothing else.

`make setup` runs it with the machine's own Python: it uses the standard library only,
and its words are those of Python 3.6, so that one that is too old can say so.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

UV = "uv==0.13.9"
OLDEST, TOO_NEW = (3, 11), (3, 15)  # as `requires-python` in pyproject.toml

ROOT = Path(__file__).resolve().parent.parent
BOOT = ROOT / ".boot"
VENV = ROOT / ".venv"
READY = VENV / ".ready"  # the Makefile compares its age with the lock files'

WHY = "The lines above say why."
NO_NETWORK = (
    "The lines above say why. If the package index did not answer: check the network "
    "and the proxy (HTTPS_PROXY); behind a mirror, set PIP_INDEX_URL and "
    "UV_DEFAULT_INDEX to its address. Then run `make setup` again."
)
NO_VENV = (
    "This Python cannot make virtual environments. On Debian and Ubuntu: "
    "`apt-get install python3-venv` (or python3.12-venv, as its version is). "
    "Then run `make setup` again."
)
BROKEN_PROJECT = (
    "The packages are there, the project itself is not installed; the lines above say "
    "why. It is most often a fault in pyproject.toml."
)


def main() -> None:
    """Make what is missing, and leave a stamp."""
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        stop(
            "This is Python {}.{}; the project needs 3.11 to 3.14. Install one of "
            "these, or name one: `make setup PYTHON=python3.12`.".format(
                *sys.version_info
            )
        )
    uv = BOOT / "bin" / "uv"
    if not answers(uv, "--version", starts=UV.replace("==", " ")):
        say(f"Making .boot, which holds the installer ({UV})")
        shutil.rmtree(str(BOOT), ignore_errors=True)
        run([sys.executable, "-m", "venv", BOOT], advice=NO_VENV)
        pip = str(BOOT / "bin" / "python"), "-m", "pip", "install", "--quiet"
        run([*pip, "--disable-pip-version-check", UV], advice=NO_NETWORK)
    if not answers(VENV / "bin" / "python", "--version", starts="Python 3."):
        say(f"Making .venv with {sys.executable}")
        run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, VENV])
    say("Installing the locked packages (about 700 MB)")
    lock = ROOT / "requirements-dev.txt"
    run([uv, "pip", "sync", "--require-hashes", lock], advice=NO_NETWORK)
    say("Installing the project itself, in place")
    flags = ["--quiet", "--no-deps", "--no-build-isolation"]
    run([uv, "pip", "install", *flags, "--editable", ROOT], advice=BROKEN_PROJECT)
    READY.touch()
    say("Ready: .venv has Python {}.{}.{}".format(*sys.version_info))


def run(command: "list[str | Path]", advice: str = WHY) -> None:
    """Run one step; where it fails, say what to do and stop."""
    # The project's own environment, whatever the shell has activated; and no Python
    # from elsewhere: uv would fetch one without asking.
    environment = dict(os.environ, VIRTUAL_ENV=str(VENV), UV_PYTHON_DOWNLOADS="never")
    words = [str(word) for word in command]
    step = subprocess.Popen(
        words,
        cwd=str(ROOT),
        env=environment,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    for line in step.stderr or ():
        if not line.startswith((" + ", " - ", " ~ ")):  # 209 packages, one by one
            print("      ", line.rstrip(), flush=True)
    if step.wait() != 0:
        stop("`{}` failed. {}".format(" ".join(words), advice))


def answers(program: Path, argument: str, starts: str) -> bool:
    """Tell whether a program is there, runs, and says that it is the wanted one."""
    try:
        words = [str(program), argument]
        said = subprocess.check_output(words, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return False
    return said.decode().startswith(starts)


def say(sentence: str) -> None:
    """Show progress."""
    print("setup:", sentence, flush=True)


def stop(sentence: str) -> NoReturn:
    """End with a sentence on what to do."""
    sys.exit(f"setup: {sentence}")


if __name__ == "__main__":
    main()
