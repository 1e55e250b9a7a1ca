"""The sign-ins that the servers were last given: to change a password takes the old one.

``python -m src.bootstrap.applied`` notes those of the very first start.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from src.errors import run_command
from src.files import write_private
from src.settings import Settings, load_settings, read_env_file

# Not the store's: it takes a changed one from its environment at each start.
NAMES = (
    "ZENML_ADMIN_USERNAME",
    "ZENML_ADMIN_PASSWORD",
    "MLFLOW_ADMIN_USERNAME",
    "MLFLOW_ADMIN_PASSWORD",
)


@dataclass(frozen=True)
class SignIn:
    """A user name and a password."""

    username: str
    password: str


class Applied:
    """``.stack/<backend>/applied.env``, written at the first start and after each change."""

    def __init__(self, settings: Settings) -> None:
        """Read the file; what it lacks is taken from the settings."""
        self._file = settings.backend_state / "applied.env"
        self._now = {name: str(getattr(settings, name.lower())) for name in NAMES}
        self._then = self._now | (read_env_file(self._file) if self._file.is_file() else {})

    @property
    def zenml(self) -> SignIn:
        """ZenML's administrator as applied last."""
        return SignIn(self._then["ZENML_ADMIN_USERNAME"], self._then["ZENML_ADMIN_PASSWORD"])

    @property
    def mlflow(self) -> SignIn:
        """MLflow's administrator as applied last."""
        return SignIn(self._then["MLFLOW_ADMIN_USERNAME"], self._then["MLFLOW_ADMIN_PASSWORD"])

    def remember(self, prefix: str = "ZENML") -> None:
        """Store one server's current sign-in as the applied one."""
        new = {n: self._now[n] if n.startswith(prefix) else self._then[n] for n in NAMES}
        if new != self._then or not self._file.is_file():
            write_private(self._file, "".join(f"{name}={value}\n" for name, value in new.items()))
        self._then = new


if __name__ == "__main__":
    sys.exit(run_command(lambda: Applied(load_settings()).remember()))
