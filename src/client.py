"""This process, or a command, as a client of this checkout's stack.

``python -m src.client FOLDER COMMAND…`` runs a command in a folder as one.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import yaml

from src import OPT_OUTS
from src import settings as settings_module
from src.errors import UserError, file_fault, run_command
from src.files import own_folder, private_folder
from src.settings import ROOT, STATE, Settings, load_settings

# What of your own environment would lead the clients elsewhere.
FOREIGN = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "MLFLOW_ACTIVE_MODEL_ID",
    "MLFLOW_ENABLE_WORKSPACES",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_WORKSPACE",
    "ZENML_ACTIVE_PROJECT_ID",
    "ZENML_ACTIVE_STACK_ID",
    "ZENML_LOCAL_STORES_PATH",
)
FOREIGN_PREFIXES = ("FSSPEC_", "ZENML_SECRETS_STORE_", "ZENML_STORE_")
NOT_FOREIGN = ("ZENML_STORE_API_KEY",)  # how a CI runner signs in: docs/lab.md
TEMPORARY = STATE / "tmp"  # a folder of each process in it
# The user's commands that see and set the checkout's active stack; in a shell `zenml` may be typed.
SHARE_ZENML = ("zenml", "bash", "dash", "fish", "sh", "zsh")


def client_environment(settings: Settings) -> dict[str, str]:
    """Return what ZenML, MLflow, DVC and Ultralytics need to use this checkout's stack only.

    Keeps their configuration and caches in ``.stack/``, switches off everything that would call
    home, and shields them from the person's own AWS profiles and proxies.
    """
    private = settings.backend_state
    no_proxy = {"localhost", "127.0.0.1", settings.bind_address}
    for name in ("NO_PROXY", "no_proxy"):
        no_proxy |= {host.strip() for host in os.environ.get(name, "").split(",")} - {""}
    environment = OPT_OUTS | {
        "ZENML_CONFIG_PATH": str(private / "zenml-client"),
        "ZENML_CUSTOM_SOURCE_ROOT": str(ROOT),
        "ZENML_STORE_URL": settings.zenml_url,
        "ZENML_ENABLE_REPO_INIT_WARNINGS": "false",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        "MLFLOW_TRACKING_USERNAME": settings.mlflow_admin_username,
        "MLFLOW_TRACKING_PASSWORD": settings.mlflow_admin_password,
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # Else MLflow sends clients to the object store under the name by which it knows it itself,
        # which on Docker resolves in the containers only.
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # Not the user's own, whose cache or remote may be another.
        "DVC_GLOBAL_CONFIG_DIR": str(STATE / "no-dvc-config"),
        "DVC_SYSTEM_CONFIG_DIR": str(STATE / "no-dvc-config"),
        "DVC_SITE_CACHE_DIR": str(STATE / "dvc"),
        "FSSPEC_CONFIG_DIR": str(STATE / "no-fsspec-config"),
        "YOLO_CONFIG_DIR": str(STATE / "ultralytics"),
        "YOLO_VERBOSE": "false",
        "TMPDIR": str(STATE / "tmp"),
        # NumPy and PyTorch read it on import. One, because the sums of several threads depend on
        # their number, and because a cell that spins on two cores slows its neighbour.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "UV_CACHE_DIR": str(STATE / "uv"),  # ZenML asks uv, where there is one, what is installed
        "AWS_CONFIG_FILE": str(STATE / "no-aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(STATE / "no-aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        # JuiceFS's gateway takes pyarrow's uploads only without the checksums that it ignores.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "NO_PROXY": ",".join(sorted(no_proxy)),
        "no_proxy": ",".join(sorted(no_proxy)),
    }
    # A key in the environment makes ZenML forget its last sign-in, even if it came with it.
    if settings.api_key and not last_sign_in(settings):
        environment["ZENML_STORE_API_KEY"] = settings.api_key
    # Our runs use our stack, whatever `zenml init` or `zenml stack set` made the active one.
    if settings.stack_id:
        environment["ZENML_ACTIVE_STACK_ID"] = settings.stack_id
    return environment


def last_sign_in(settings: Settings) -> dict[str, Any]:
    """Return what ZenML's client keeps of the stored API key's: that ``api_key``, ``api_token``.

    Nothing where it keeps none, another key's, or what a killed one has left.
    """
    file = settings.backend_state / "zenml-client" / "credentials.yaml"
    try:
        kept = dict(yaml.safe_load(file.read_text(encoding="utf-8"))[settings.zenml_url])
    except (FileNotFoundError, yaml.YAMLError, TypeError, KeyError, ValueError):
        return {}
    return kept if kept.get("api_key") == settings.api_key else {}


def use_stack(settings: Settings) -> None:
    """Make this process a client of the stack; call it before importing ZenML or MLflow."""
    not_foreign = () if settings.api_key else NOT_FOREIGN
    for name in list(os.environ):
        if name in FOREIGN or (name.startswith(FOREIGN_PREFIXES) and name not in not_foreign):
            del os.environ[name]
    os.environ.update(client_environment(settings))
    # What libraries write is nobody else's either; the second folder DVC would open to everybody.
    os.umask(0o077)
    private_folder(STATE / "dvc" / "repo")
    parent = parent_process()  # a grid's worker shares that of its grid, which outlives it
    temporary = own_folder(TEMPORARY, parent.pid or 0 if parent else os.getpid())
    os.environ["TMPDIR"] = str(temporary)
    if not parent:
        atexit.unregister(_remove)
        atexit.register(_remove, temporary, os.getpid())
    _mend_configuration(settings)


def _mend_configuration(settings: Settings) -> None:
    """Delete what is torn of ZenML's configuration: ZenML refuses it, and makes another."""
    if _torn_configuration():
        with turn(settings):  # it is written in place, and may be whole a moment later
            for file in _torn_configuration():
                file.unlink(missing_ok=True)


def _torn_configuration() -> list[Path]:
    torn = []
    for file in Path(os.environ["ZENML_CONFIG_PATH"]).glob("*.yaml"):
        try:
            yaml.safe_load(file.read_bytes())
        except FileNotFoundError:  # another one has just deleted it
            continue
        except yaml.YAMLError:
            torn.append(file)
    return torn


def _remove(temporary: Path, owner: int) -> None:
    if os.getpid() == owner:  # not what has forked from it
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def turn(settings: Settings) -> Iterator[None]:
    """Wait for this process's turn to use ZenML's client for the first time.

    It writes its configuration in place, and a process that reads half of it gets the stack
    ``default``.
    """
    with (private_folder(settings.backend_state) / "zenml-client.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def give(settings: Settings, api_key: str) -> None:
    """Make a process without ``.env``, a cluster's worker, a client; all stays in its memory."""
    settings_module.give(settings)
    use_stack(settings)
    os.environ["ZENML_STORE_API_KEY"] = api_key


def _inside(folder: str, command: Sequence[str]) -> bool:
    """Tell whether a command runs in the checkout, on files of the checkout."""
    files = [path for word in command[1:] if (path := Path(folder, word)).is_file()]
    return all(path.resolve().is_relative_to(ROOT) for path in (Path(folder), *files))


def _own_configuration(settings: Settings) -> None:
    """Give this process a copy of ZenML's configuration, which ZenML writes in place.

    Of many processes that share one, one reads half of it, and makes ``default`` the active stack
    of all.
    """
    shared = Path(os.environ["ZENML_CONFIG_PATH"])
    own = private_folder(Path(os.environ["TMPDIR"]) / "zenml-client")
    with turn(settings):
        for file in shared.glob("*.yaml"):
            shutil.copy2(file, own)
    os.environ["ZENML_CONFIG_PATH"] = str(own)
    os.environ["ZENML_LOCAL_STORES_PATH"] = str(shared / "local_stores")
    config = own / "config.yaml"
    if config.is_file() and "active_stack_id:" in config.read_text(encoding="utf-8"):
        os.environ.pop("ZENML_ACTIVE_STACK_ID", None)


def main(folder: str, *command: str) -> int:
    """Replace this process by ``command``, run in ``folder``; 127 where it can't be run."""

    def replace() -> None:
        source_root = os.environ.get("ZENML_CUSTOM_SOURCE_ROOT")
        settings = load_settings()
        use_stack(settings)
        if Path(command[0]).name in SHARE_ZENML:
            os.environ.pop("ZENML_ACTIVE_STACK_ID", None)  # it would hide which one is active
        else:
            _own_configuration(settings)
        if source_root is not None:
            os.environ["ZENML_CUSTOM_SOURCE_ROOT"] = source_root
        elif not _inside(folder, command):
            os.environ.pop("ZENML_CUSTOM_SOURCE_ROOT", None)  # your own steps are where they are
        os.chdir(folder)
        try:
            os.execvp(command[0], command)  # noqa: S606 - the user's own command
        except OSError as error:  # which does not say what could not be run
            raise UserError(f"{command[0]} can't be run: {file_fault(error)}") from error

    status = run_command(replace)
    return 127 if status == 1 else status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
