"""Settings of this checkout, typed, from the process environment, ``.env`` and ``.env.example``.

The first that names a setting with a value wins; ``.env.example`` holds every default. The shell
reads the same settings through ``python -m src.services`` (``KEY=value`` lines), so that there is
one parser and one set of rules.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".stack"
ENV_FILE = ROOT / ".env"
EXAMPLE_FILE = ROOT / ".env.example"

_LINE = re.compile(r"(?P<key>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>[A-Za-z0-9_./:@-]*)")

Port = Annotated[int, Field(ge=1, le=65535)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./:@-]+$")]
Secret = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./:@-]+$", min_length=8, max_length=40)]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./:@-]+$", min_length=32)]
# Three characters or more: the store silently disables a shorter access key.
AccessKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", min_length=3, max_length=20)]
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$")]
# Host names, each with a port or without, separated by slashes.
Names = Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]+(:[0-9]+)?(/|$))*$")]


# What a setting of .env.example may be that `Settings` does not name, by the end of its name.
BY_SUFFIX = {
    "_PORT": Port,
    "_BUCKET": Bucket,
    "_ACCESS_KEY": AccessKey,
    "_PASSWORD": Secret,
    "_KEY": Key,
    "": Word,
}
# Two of a group with the same value would be one service, bucket or user.
DISTINCT = {
    "the ports": ("_PORT",),
    "the buckets": ("_BUCKET",),
    "the store's users": ("_ROOT_USER", "_ACCESS_KEY"),
}


class SettingsError(UserError):
    """One or more settings are missing or wrong; the message has one line for each."""


class Settings(BaseModel):
    """Every setting of ``.env.example`` under its lower-case name.

    One that is not named here is checked by the end of its name: see ``BY_SUFFIX``.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    mode: Literal["auto", "docker", "native"]
    bind_address: Word
    host_names: Names = ""
    zenml_port: Port
    mlflow_port: Port
    minio_port: Port
    minio_console_port: Port
    serve_port: Port
    serve_model: Word
    start_timeout: Annotated[int, Field(ge=1)]

    zenml_admin_username: Word
    zenml_admin_password: Secret
    mlflow_admin_username: Word
    mlflow_admin_password: Annotated[Secret, Field(min_length=12)]
    minio_root_user: AccessKey
    minio_root_password: Secret

    zenml_bucket: Bucket
    zenml_s3_access_key: AccessKey
    zenml_s3_secret_key: Secret
    mlflow_bucket: Bucket
    mlflow_s3_access_key: AccessKey
    mlflow_s3_secret_key: Secret
    dvc_bucket: Bucket
    dvc_s3_access_key: AccessKey
    dvc_s3_secret_key: Secret

    zenml_jwt_secret_key: Key
    zenml_encryption_key: Key
    mlflow_server_secret_key: Key
    serve_api_key: Key = ""
    ray_secret_key: Key = ""  # blank until `make setup` of this version has run

    compose_project_name: str = ""
    mysql_image: Word
    minio_image: Word
    python_image: Word
    mysql_root_password: Secret = ""  # blank until `make setup` of this version has run
    mysql_zenml_password: Secret = ""
    mysql_mlflow_password: Secret = ""

    dataset: str  # auto, coco128, synthetic, or a path or address: see src/datasets/sets.py
    coco128_url: Annotated[str, Field(pattern=r"^(https?|file)://")]
    weights: str

    torch: Literal["auto", "cpu", "cuda"] = "auto"  # both for make setup
    torch_index: Annotated[str, Field(pattern=r"^(https?|file)://")] = ""

    @field_validator("dataset")
    @classmethod
    def _findable(cls, value: str) -> str:
        if value not in ("auto", "coco128", "synthetic") and "/" not in value:
            raise ValueError(
                "must be auto, coco128, synthetic, or the path or address of a data set; a folder "
                "or file here is written with ./ before it"
            )
        return value

    @field_validator("bind_address")
    @classmethod
    def _connectable(cls, value: str) -> str:
        try:
            unspecified = ipaddress.IPv4Address(value).is_unspecified
        except ValueError:
            raise ValueError("must be an IPv4 address of this machine, such as 127.0.0.1") from None
        if unspecified:
            raise ValueError(f"{value} is not an address that clients can connect to: name one")
        return value

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the services."""
        return ipaddress.ip_address(self.bind_address).is_loopback

    @property
    def checkout(self) -> str:
        """What this checkout's servers prove themselves by: made of its path, no secret."""
        return hashlib.sha256(str(ROOT).encode()).hexdigest()[:32]

    @property
    def host(self) -> str:
        """The host name that clients use, registered with every component.

        ``localhost`` is 127.0.0.1 and no other address of the loopback.
        """
        return "localhost" if self.bind_address == "127.0.0.1" else self.bind_address

    @property
    def zenml_url(self) -> str:
        """ZenML's API and dashboard."""
        return f"http://{self.host}:{self.zenml_port}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's API and UI."""
        return f"http://{self.host}:{self.mlflow_port}"

    @property
    def store_url(self) -> str:
        """The object store's S3 endpoint."""
        return f"http://{self.host}:{self.minio_port}"

    @cached_property
    def backend(self) -> str:
        """``docker`` or ``native``: the backend that `make up` started, else ``native``."""
        record = STATE / "backend"
        known = record.read_bytes().strip() if record.is_file() else b""
        return "docker" if known == b"docker" else "native"

    @property
    def backend_state(self) -> Path:
        """The folder of what differs between the backends."""
        return STATE / self.backend

    @property
    def api_key_file(self) -> Path:
        """The ZenML service account's API key, mode 0600; written by ``src.bootstrap``."""
        return self.backend_state / "zenml-api-key"

    @property
    def stack_id_file(self) -> Path:
        """The id of our ZenML stack, whichever is active; written by ``src.bootstrap``."""
        return self.backend_state / "stack-id"

    @property
    def api_key(self) -> str:
        """What ``api_key_file`` holds; blank where there is none, or it is torn."""
        return _noted(self.api_key_file)

    @property
    def stack_id(self) -> str:
        """What ``stack_id_file`` holds; blank where there is none, or it is torn."""
        return _noted(self.stack_id_file)


def _noted(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def read_env_file(path: Path) -> dict[str, str]:
    """Return the settings of an env file.

    Raises:
        SettingsError: Naming every line that is not ``KEY=value`` with the characters that the
            shell, Compose and Python read alike, and every key that stands there twice.
    """
    values, faults = _parse(path)
    if faults:
        raise SettingsError("\n".join(faults))
    return values


def _parse(path: Path) -> tuple[dict[str, str], list[str]]:
    values: dict[str, str] = {}
    faults: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            key = re.match(r"\W*(export\s+)?(\w*)", line)
            faults.append(
                f"{path.name} line {number} ({key[2] if key else ''}): write KEY=value with "
                "A-Z a-z 0-9 _ . / : @ - only, no quotes, spaces or comment behind it"
            )
        elif match["key"] in values:
            faults.append(f"{path.name} line {number}: {match['key']} is set twice: remove one")
        else:
            values[match["key"]] = match["value"]
    return values, faults


def load_settings(
    environ: Mapping[str, str] = os.environ,
    env_file: Path = ENV_FILE,
    example_file: Path = EXAMPLE_FILE,
) -> Settings:
    """Read and check the settings, or return those that this process was given.

    A blank value counts as not set.

    Raises:
        SettingsError: With one line for every missing, wrong or unknown setting.
    """
    if _given is not None:
        return _given
    defaults = read_env_file(example_file)
    if not env_file.is_file():
        raise SettingsError(f"{env_file.name} is missing: run `make setup`")
    chosen, faults = _parse(env_file)
    faults += [
        f"{env_file.name}: unknown setting {key}{_suggest(key, defaults)}"
        for key in chosen
        if key not in defaults
    ]
    merged = {
        key: environ.get(key) or chosen.get(key) or default for key, default in defaults.items()
    }
    for what, suffixes in DISTINCT.items():
        names = [name for name in merged if name.endswith(suffixes)]
        if len({merged[name] for name in names}) < len(names):
            listed = ", ".join(
                f"{name}={merged[name]}{' from the environment' if environ.get(name) else ''}"
                for name in names
            )
            faults.append(f"{what} must differ from each other ({listed})")
    given = {name.lower(): value for name, value in merged.items() if value}
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(given | _by_suffix(merged, faults, environ))
    except ValidationError as error:
        faults += [_explain(dict(fault), environ) for fault in error.errors()]
    if faults or settings is None:
        raise SettingsError("\n".join(faults))
    return settings


def _by_suffix(
    merged: Mapping[str, str], faults: list[str], environ: Mapping[str, str]
) -> dict[str, object]:
    """Return the settings that ``Settings`` does not name, of the kind that their names end in."""
    values: dict[str, object] = {}
    for name, value in merged.items():
        if name.lower() in Settings.model_fields:
            continue
        kind = next(kind for suffix, kind in BY_SUFFIX.items() if name.endswith(suffix))
        if not value:
            faults.append(_explain({"loc": (name,), "type": "missing"}, environ))
            continue
        try:
            values[name.lower()] = TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            faults += [
                _explain(dict(fault) | {"loc": (name,)}, environ) for fault in error.errors()
            ]
    return values


def _suggest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f": did you mean {close[0]}?" if close else ": remove the line"


def _explain(fault: dict[str, object], environ: Mapping[str, str]) -> str:
    """Say what is wrong with a setting without showing its value, which may be a secret.

    Names of ours mean something else to others: Kubernetes gives every container of a cluster with
    a service ``mlflow`` an ``MLFLOW_PORT=tcp://…``.
    """
    location = fault["loc"]
    name = str(location[0]).upper() if isinstance(location, tuple) and location else ""
    if fault["type"] == "missing":
        return f"{name} is not set: run `make setup`, or set it in .env"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if environ.get(name):
        return f"{name} from the environment: {message}: unset {name}, or give it another value"
    return f"{name}: {message}: change it in .env" if name else message


_given: Settings | None = None


def give(settings: Settings) -> None:
    """Have this process, one without ``.env``, use these settings; they stay in its memory."""
    global _given
    _given = settings
