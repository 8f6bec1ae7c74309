"""The offline store in a folder."""

import fcntl
import socket
from collections.abc import Collection, Generator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from uuid import uuid4

from mlforge.delta import local_uri
from mlforge.errors import StoreError
from mlforge.stage import Workplace, clear_left
from mlforge.store.base import Store
from mlforge.store.history import incomplete


class LocalStore(Store):
    """Feature tables in a folder, `<path>/<feature>`; the folder is made by the first build.

    Args:
        path: The folder; a relative one starts at the working directory, `~` is the home directory.

    Raises:
        DefinitionError: The folder's name has a character that Delta cannot deal with.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        super().__init__(str(self.path))
        self._uri = local_uri(self.path)

    def __repr__(self) -> str:
        return f"LocalStore(path={str(self.path)!r})"

    def _address(self, feature_name: str) -> str:
        return f"{self._uri}/{feature_name}"

    def workplace(self, feature_name: str, timestamp: str | None) -> Workplace:
        """Beside the tables, where there is room for them."""
        here = f".{feature_name}.scratch-{socket.gethostname()}-"
        # Locks of other machines may not be seen here.
        for left in self.path.glob(f"{escape(here)}*"):
            clear_left(left)
        return Workplace(self.path / f"{here}{uuid4()}", self._folder(feature_name), timestamp)

    def sizes(self, feature_name: str) -> dict[str, int]:
        """The files in the folder of a table, and how many bytes each has."""
        folder = self.path / feature_name
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*.parquet")}

    def _incomplete(self, feature_name: str) -> Collection[int]:
        return incomplete(self.path / feature_name / "_delta_log", self.sizes(feature_name))

    def _has_files(self, feature_name: str) -> bool:
        return next((self.path / feature_name).rglob("*.parquet"), None) is not None

    @contextmanager
    def building(self, feature_name: str) -> Generator[None]:
        """Builds of one feature on one machine take turns, by a file lock that ends with its process."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / f".{feature_name}.lock").open("w")
        except OSError as error:
            raise StoreError(f"The store {str(self.path)!r} cannot be written: {error.strerror}.") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
