"""What the servers were last given: to change a password takes the old one, to rename a bucket too.

``python -m src.bootstrap.applied`` notes those of the very first start.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from src.errors import run_command
from src.files import write_private
from src.settings import Settings, SettingsError, load_settings, read_env_file

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
        """Read the file; what it lacks, all of it where it is torn, is taken from the settings."""
        self._file = settings.backend_state / "applied.env"
        self._now = {name: str(getattr(settings, name.lower())) for name in NAMES}
        self._noted: dict[str, str] = {}
        with suppress(FileNotFoundError, SettingsError, UnicodeDecodeError):
            self._noted = read_env_file(self._file)
        self._then = self._now | self._noted

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
        if new != self._noted:
            write_private(self._file, "".join(f"{name}={value}\n" for name, value in new.items()))
        self._noted = self._then = new


class AppliedStore(BaseModel):
    """What the store was last brought in line with: ``.stack/<backend>/store.json``."""

    users: list[str]
    zenml: str  # the buckets
    mlflow: str
    dvc: str
    former: list[str] = Field(default_factory=list)  # ZenML's buckets of before

    @classmethod
    def wanted(cls, settings: Settings) -> AppliedStore:
        """Return what the settings ask for."""
        s = settings
        users = [s.zenml_s3_access_key, s.mlflow_s3_access_key, s.dvc_s3_access_key]
        return cls(users=users, zenml=s.zenml_bucket, mlflow=s.mlflow_bucket, dvc=s.dvc_bucket)

    @classmethod
    def last(cls, settings: Settings) -> AppliedStore:
        """Return what was applied last; before the first time, or if torn, what is to be."""
        try:
            return cls.model_validate_json(_record(settings).read_bytes())
        except (FileNotFoundError, ValidationError):
            return cls.wanted(settings)

    def remember(self, settings: Settings) -> None:
        """Store it as what was applied last."""
        write_private(_record(settings), self.model_dump_json() + "\n")


def _record(settings: Settings) -> Path:
    return settings.backend_state / "store.json"


def former_buckets(settings: Settings) -> list[str]:
    """Return the buckets, but for the present one, that ZenML's artifacts may be in."""
    last = AppliedStore.last(settings)
    known = dict.fromkeys([*last.former, last.zenml])
    return [bucket for bucket in known if bucket != settings.zenml_bucket]


if __name__ == "__main__":
    sys.exit(run_command(lambda: Applied(load_settings()).remember()))
