"""See to it that the browser tests have a Chromium: `make browser`.

The machine's own is taken where there is one. Else it is installed: by apt-get where this
is Debian or Ubuntu and root, and by Playwright's own download elsewhere.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ADVICE = (
    "browser: no Chromium, and none could be installed; the lines above say why. Install "
    "one (on Debian: `apt-get install chromium`), then run this again."
)


def main() -> None:
    """Install what is missing; say what is there."""
    if not found():
        apt = shutil.which("apt-get")
        if apt and os.geteuid() == 0:
            run([apt, "update", "-qq"])
            run([apt, "install", "-y", "-qq", "--no-install-recommends", "chromium"])
        if not found():
            run(
                [
                    sys.executable,
                    "-m",
                    "playwright",
                    "install",
                    "chromium-headless-shell",
                ]
            )
    if not found():
        sys.exit(ADVICE)
    print("browser:", found(), flush=True)


def found() -> "str | None":
    """Return the path of a Chromium, the machine's own first; None if there is none."""
    own = next(filter(None, map(shutil.which, NAMES)), None)
    if own:
        return own
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if os.path.exists(path) else None


def run(command: "list[str]") -> None:
    """Run one step; the next look says whether it helped."""
    subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
