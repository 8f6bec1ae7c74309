"""`mlforge completion`: the shell completes commands and options."""

from typing import Literal

from cyclopts import App

from mlforge.cli import output

EXAMPLES = """Examples:
  mlforge completion --install
  mlforge completion bash > mlforge.bash"""


def register(app: App) -> None:
    """Adds the command."""

    def completion(shell: Literal["bash", "zsh", "fish"] | None = None, /, *, install: bool = False) -> int:
        """Print what makes a shell complete mlforge's commands and options, or install it for this user.

        It is installed where the shell looks for such files; for bash and zsh a line in ~/.bashrc or ~/.zshrc, which is
        written once, makes them look there. It holds for shells that are started afterwards.

        Args:
            shell: bash, zsh or fish; by default the one that this is typed in.
            install: Write it to this user's files instead of printing it.
        """
        from cyclopts.completion.detect import ShellDetectionError

        from mlforge.errors import RequestError

        try:
            if install:
                output.write(f"{app.install_completion(shell=shell)} is written; new shells complete mlforge.")
            else:
                output.write(app.generate_completion(shell=shell))
        except ShellDetectionError:
            raise RequestError("The shell cannot be told: name it, as in `mlforge completion bash`.") from None
        return 0

    app.command(completion, usage="Usage: mlforge completion [SHELL] [OPTIONS]", help_epilogue=EXAMPLES)
