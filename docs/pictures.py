"""Pictures of the terminal for README and docs: what real commands print on the example's data, drawn by Rich.

python docs/pictures.py docs/images
"""

import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

EXAMPLE = Path(__file__).parent.parent / "examples" / "transactions" / "definitions.py"
MLFORGE = Path(sys.executable).with_name("mlforge")
COLUMNS = 100
# In the order in which they are run; each is drawn with what the ones before have left.
PICTURES = {
    "terminal-build": "build --online --as-of 2018-01-02",
    "terminal-status": "status",
    "terminal-read": "read user_spend user_id=1",
    "terminal-explain": "explain user_spend user_id=1",
}
# The line that shows how far a build is begins anew with each of these.
FRAME = re.compile(r"\r?\x1b\[2K|\r|\n")
PHASES = ("reading", "computing", "publishing", "syncing")
# The fonts that Rich would have a page load from elsewhere.
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def printed(folder: Path, line: str) -> tuple[str, str]:
    """What a command prints on two terminals, its results on the one, how far it is on the other."""
    screens, ends = zip(*(pty.openpty() for _ in range(2)), strict=True)
    for end in ends:
        termios.tcsetwinsize(end, (60, COLUMNS))
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    out, err = ends
    command = subprocess.Popen(  # noqa: S603 -- our own
        [MLFORGE, *line.split()],
        cwd=folder,
        env={**plain, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
    )
    for end in ends:
        os.close(end)
    # At once, since a terminal buffers no more than some lines while nobody reads.
    with ThreadPoolExecutor() as readers:
        results, told = readers.map(_all, screens)
    if command.wait():
        raise SystemExit(f"mlforge {line} failed:\n{told}")
    return results, told


def progress(told: str) -> str:
    """For each phase of the first feature the last that was said of it; on a terminal one is in place of the other."""
    frames = [frame for frame in FRAME.split(told) if "(1 of " in frame]
    last = {phase: frame for frame in frames for phase in PHASES if phase in frame}
    return "\n".join(last[phase] for phase in PHASES if phase in last)


def draw(file: Path, lines: Iterable[tuple[str, str]]) -> None:
    """Draws command lines and what they print."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line, shown in lines:
        console.print(Text.assemble(("$ ", "dim"), (f"mlforge {line}", "bold")))
        console.print(Text.from_ansi(shown.rstrip()))
    picture = FONTS.sub("", console.export_svg(title="mlforge"))
    file.write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n")


def main(images: Path) -> None:
    """Runs the commands one after the other and draws each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(EXAMPLE, folder)
        for picture, line in PICTURES.items():
            results, told = printed(folder, line)
            if str(folder) in results:
                raise SystemExit(f"mlforge {line} prints the folder in which it runs, which is nobody's business.")
            draw(images / f"{picture}.svg", [(line, results)])
            if picture == "terminal-build":
                draw(images / "terminal-progress.svg", [(line, progress(told))])


def _all(screen: int) -> str:
    shown = b""
    # Linux says EIO once the other end is closed.
    with os.fdopen(screen, "rb", buffering=0) as opened, suppress(OSError):
        while chunk := opened.read(65_536):
            shown += chunk
    return shown.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
