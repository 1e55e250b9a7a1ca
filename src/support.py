"""One archive for who is to help: versions, settings, states and ends of logs, without secrets.

``python src/support.py ARCHIVE`` writes it. Standard library only: it is wanted most where ``make
setup`` has failed. What a secret is, is told by the names of settings, by the private files of
``.stack``, and by the forms in which libraries write them.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 60.0  # seconds for one command
LINES = 200  # of each log
LOG_BYTES = 60_000  # of each log; 25 MB is what an issue takes
LOGS = 40
PRIVATE_BYTES = 65_536  # a private file that holds more holds no settings
REMOVED = "(removed)"

SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|key)[\w.-]*$")
USER_NAME = re.compile(r"(?i)^(?!.*secret).*access_key(_id)?$")  # the store's word for a user
_PAIR = re.compile(
    r"""(?ix) (?P<name> [\w.-]+ | identified\ by) ["']? [ \t]* (?: [:=] | (?<=by)) [ \t]*
    (?P<value> "[^"\n]*" | '[^'\n]*' | [^\s"',;]+)"""
)
_NO_SECRETS = ("none", "null", "true", "false")
_CACHES = ("logs", "data", "tmp", "cache", "dvc", "ultralytics", "matplotlib", "uv")
_SINGLE = re.compile(r"(?i)(key|token|password)$")  # files that hold one secret alone

_FORMS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [^\n]*|\Z)", re.DOTALL), REMOVED),
    (re.compile(r"(?<=://)[^/\s@\"'<>]+@"), f"{REMOVED}@"),
    (
        re.compile(
            r"(?i)((?:authorization|cookie|x-api-key|x-amz-security-token)"
            r"[\"']?[ \t]*[:=][ \t]*[\"']?)[^\r\n\"']+"
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{16,}"), rf"\1 {REMOVED}"),
    (
        re.compile(
            r"(?i)([?&;][\w.-]*(?:token|key|secret|passw\w*|signature|credential|\bsig|auth|code)"
            r"[\w.-]*=)[^&\s\"'<>]+"
        ),
        rf"\1{REMOVED}",
    ),
    # NAME=value, "name": "value", and `name: value` where the line ends with it: what goes on is
    # a sentence.
    (
        re.compile(
            r"(?i)([\w.-]*(?:password|passwd|secret|token|api[_-]?key|secret[_-]?key)[\w.-]*"
            r"(?:[\"']?[ \t]*=[ \t]*[\"']?|[\"']\s*:\s*[\"']))(?!\(removed\))[^\s\"',;&]{3,}"
        ),
        rf"\1{REMOVED}",
    ),
    (
        re.compile(
            r"(?im)([\w.-]*(?:password|passwd|secret|token|api[_-]?key|secret[_-]?key) *: +)"
            r"(?!\(removed\))\S{3,}[ \t]*$"
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"), REMOVED),  # JSON web tokens
    (
        re.compile(
            r"\b(?:ZENKEY_[\w=-]+|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}"
            r"|glpat-[\w-]{16,}|hf_\w{20,})"
        ),
        REMOVED,
    ),
)
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\]8;;[^\a]*\a)")

# Shown with their values beside our own settings; of all others of these kinds the name alone.
_SHOWN = (
    *("LANG", "LC_ALL", "TERM", "SHELL", "TMPDIR", "PYTHONPATH", "CUDA_VISIBLE_DEVICES"),
    *("DOCKER_HOST", "DOCKER_CONTEXT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "FORCE", "VENV", "PYTHON", "MODE"),
)
_KINDS = re.compile(
    r"^(ZENML|MLFLOW|MINIO|AWS|DVC|RAY|YOLO|PIP|PYTHON|FSSPEC|UV|CUDA|OMP|DOCKER|COMPOSE|GIT|SSL"
    r"|REQUESTS|LD|DYLD|SLURM|KUBERNETES|CONDA|VIRTUAL_ENV)(_|$)"
)


# --- Secrets --------------------------------------------------------------------------------------


def is_secret(name: str) -> bool:
    """Tell whether a setting of that name holds a secret."""
    return bool(SECRET_NAME.search(name)) and not USER_NAME.match(name)


def secrets(root: Path, environment: Mapping[str, str]) -> set[str]:
    """Return every secret of ``.env``, of the private files and of the environment."""
    found = {value for name, value in environment.items() if is_secret(name)}
    for file in private_files(root):
        try:
            text = file.read_bytes()[:PRIVATE_BYTES].decode(errors="replace")
        except OSError:  # another user's, or gone meanwhile: then nothing of it is gathered either
            continue
        if _SINGLE.search(file.name):
            found.add(text.strip())
        for pair in _PAIR.finditer(text):
            if is_secret(pair["name"]) or pair["name"].lower() == "identified by":
                found.add(pair["value"].strip("\"'"))
        if file.name == ".env":
            found |= {value for name, value in env_lines(text) if is_secret(name)}
    return {value for value in found if len(value) >= 4 and value.lower() not in _NO_SECRETS}


def private_files(root: Path) -> Iterator[Path]:
    """Yield the files that may hold secrets: settings, never logs or data."""
    yield from (file for file in (root / ".env", root / ".dvc" / "config.local") if file.is_file())
    for folder, folders, names in os.walk(root / ".stack"):
        folders[:] = [name for name in folders if name not in _CACHES]
        for file in (Path(folder, name) for name in names if not name.endswith(".log")):
            if not file.is_symlink() and file.is_file() and file.stat().st_size <= PRIVATE_BYTES:
                yield file


def env_lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and value of each line of an env file, however badly it is written."""
    for line in text.splitlines():
        name, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            yield name.strip().removeprefix("export ").strip(), value.strip().strip("\"'")


class Redaction:
    """Removes secrets, the home folder's name and terminals' colours from a text."""

    def __init__(self, secrets: Iterable[str], home: str) -> None:
        """Know the secrets, as they are and as addresses and headers write them."""
        forms = set()
        for secret in secrets:
            encoded = base64.b64encode(secret.encode()).decode()
            forms |= {secret, quote(secret, safe=""), encoded.rstrip("=")}
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None
        self._home = home.rstrip("/")

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        text = _ESCAPES.sub("", text)
        if self._known:
            text = self._known.sub(REMOVED, text)
        for form, replacement in _FORMS:
            text = form.sub(replacement, text)
        if self._home:
            text = re.sub(rf"{re.escape(self._home)}(?![\w.-])", "~", text)
        return text


# --- What is gathered -----------------------------------------------------------------------------


def settings(root: Path, environment: Mapping[str, str]) -> str:
    """Return every setting with where it comes from; of secrets, only whether they are set."""
    known = dict(env_lines(_read(root / ".env.example")))
    written = list(env_lines(_read(root / ".env")))
    lines = ["# .env" if written else "# .env: missing, empty, or not to be read"]
    for name, value in written:
        if name not in known:
            lines.append(f"{name}: unknown here, its value is left out")
        elif is_secret(name):
            lines.append(f"{name}={REMOVED if value else ''}")
        else:
            lines.append(f"{name}={value}")
    lines.append("# The environment")
    for name in sorted(environment):
        if (name in known or name in _SHOWN) and not is_secret(name):
            lines.append(f"{name}={environment[name]}")
        elif name in known or _KINDS.match(name):
            lines.append(f"{name}: set, its value is left out")
    return "\n".join(lines) + "\n"


def run(command: list[str], root: Path, limit: float = LIMIT) -> str:
    """Return a command line, what it says, and how it ended."""
    said = f"$ {' '.join(command)}\n"
    if shutil.which(command[0], path=os.environ.get("PATH")) is None and "/" not in command[0]:
        return f"{said}(not installed)\n"
    try:
        process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        return f"{said}({error.strerror})\n"
    try:
        answer, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        answer, _ = process.communicate()
        return f"{said}{answer}(no end after {limit:.0f} s)\n"
    return said + answer + (f"(status {process.returncode})\n" if process.returncode else "")


def versions(root: Path) -> Iterator[list[str]]:
    """Yield the commands that tell what runs here."""
    yield ["uname", "-srm"]
    if Path("/etc/os-release").is_file():
        yield ["sed", "-n", "s/^PRETTY_NAME=//p", "/etc/os-release"]
    yield ["git", "log", "-1", "--format=%h %cs"]
    yield ["git", "status", "--short", "--untracked-files=no"]
    yield from ([tool, "--version"] for tool in ("git", "bash", "make", "python3"))
    yield ["docker", "version"]
    yield ["docker", "compose", "version"]
    yield ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv"]
    yield ["df", "-Pk", str(root), str(root / ".stack")]
    if Path("/proc/meminfo").is_file():
        yield ["head", "-n", "3", "/proc/meminfo"]
    listing = "import importlib.metadata as m, sys; print(sys.version); print(*sorted("
    listing += "{f'{d.name} {d.version}' for d in m.distributions()}), sep='\\n')"
    yield [str(interpreter(root)), "-c", listing]


def interpreter(root: Path) -> Path:
    """Return the checkout's own Python, there or not."""
    return Path(os.environ.get("VENV") or root / ".venv") / "bin" / "python"


def files(root: Path) -> str:
    """List what ``.stack`` holds: rights, size, time and name."""
    lines = []
    for folder, folders, names in os.walk(root / ".stack"):
        folders[:] = sorted(name for name in folders if name == "logs" or name not in _CACHES)
        for name in sorted(names):
            file = Path(folder, name)
            about = file.lstat()
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(about.st_mtime))
            rights = f"{about.st_mode & 0o7777:o}"
            lines.append(f"{rights:>4} {about.st_size:>11} {when} {file.relative_to(root)}")
    more = [f"… and {len(lines) - 500} more"] if len(lines) > 500 else []
    return "\n".join(lines[:500] + more) + "\n"


def logs(root: Path) -> list[Path]:
    """Return the logs, those written last first."""
    state = root / ".stack"
    found = [state / "errors.log", state / "ray" / "start.log", *state.glob("*/logs/*.log")]
    found += state.glob("native/*/*.log")
    real = [file for file in found if file.is_file() and not file.is_symlink()]
    return sorted(real, key=lambda file: file.stat().st_mtime, reverse=True)[:LOGS]


def tail(file: Path) -> str:
    """Return a log's last lines, whole ones only: half a secret would not be known as one."""
    with file.open("rb") as stream:
        size = stream.seek(0, io.SEEK_END)
        start = max(0, size - LOG_BYTES)
        stream.seek(max(0, start - 1))
        block = stream.read()
    if start:
        block = block.partition(b"\n")[2]
    return "\n".join(block.decode(errors="replace").splitlines()[-LINES:]) + "\n"


def gather(root: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each of the archive's files, secrets and all."""
    yield "versions.txt", "\n".join(run(command, root) for command in versions(root))
    yield "settings.txt", settings(root, environment)
    yield "doctor.txt", run(["scripts/check-health.sh"], root)
    yield "status.txt", run(["scripts/show-status.sh"], root)
    yield "files.txt", files(root)
    for file in logs(root):
        yield f"logs/{'-'.join(file.relative_to(root / '.stack').parts)}", tail(file)
    if _read(root / ".stack" / "backend").strip() == "docker":
        command = ["env", "-u", "FOLLOW", f"LINES={LINES}", "scripts/show-logs.sh"]
        yield "logs/containers.log", run(command, root)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def write(archive: Path, root: Path, environment: Mapping[str, str]) -> list[str]:
    """Write the archive in one move, readable by nobody else; return its files' names."""
    texts = list(gather(root, environment))
    # After what is gathered, since a command may have made a new secret meanwhile.
    redacted = Redaction(secrets(root, environment), environment.get("HOME", ""))
    new = archive.with_name(f".{archive.name}.new")
    new.unlink(missing_ok=True)
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with (
            os.fdopen(descriptor, "wb") as stream,
            tarfile.open(fileobj=stream, mode="w:gz") as tar,
        ):
            for name, text in texts:
                content = redacted(text).encode()
                about = tarfile.TarInfo(f"support/{name}")
                about.size, about.mtime, about.mode = len(content), int(time.time()), 0o600
                tar.addfile(about, io.BytesIO(content))
        new.replace(archive)
    finally:
        new.unlink(missing_ok=True)
    return [name for name, _ in texts]


def main(archive: str) -> int:
    """Run the command line described above."""
    path = Path(archive)
    print("gathering (half a minute at most while servers are silent)", file=sys.stderr, flush=True)
    try:
        names = write(path, ROOT, os.environ)
    except OSError as error:
        print(f"error: {error.filename or path}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(
        f"{len(names)} files, {path.stat().st_size // 1000 + 1} KB, without secrets; paths and "
        f"host names are in it: look through it (tar -xOf {path.name} | less) before you attach it",
        file=sys.stderr,
    )
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
