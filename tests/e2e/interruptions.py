"""Points at which a command can be killed: every call of it that changes something outside itself.

Each Python process that a command starts notes its own through ``sitecustomize`` and audit events,
each script through ``BASH_ENV`` and a DEBUG trap. At the point that is asked for, the whole process
group dies, just before the call; a file that is opened for writing has then been cut to nothing.
The command itself knows nothing of it.
"""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from tests.e2e.conftest import Checkout

PYTHON = r'''
import atexit, os, re, signal, sys

LIST, AT = os.environ.get("POINTS_LIST"), os.environ.get("POINTS_KILL")
ROOT = os.environ.get("POINTS_ROOT", "") + "/"
given = sys.orig_argv[1:3]
WHO = given[1] if given[:1] == ["-m"] and len(given) > 1 else " ".join(given[:1])
CHANGES = ("POST", "PUT", "PATCH", "DELETE")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
LOOKS = re.compile(r"/(search|login|get-[a-z-]+)\b|^/RPC2|/ready\b|/logs\b")
# What differs from one run to the next, or from one of many to the other.
SAME = [
    (r"(\.stack/(tmp|matplotlib|ultralytics)/|\.unfinished-).*", r"\1*"),
    (r"(\.venv/)(lib|bin|include)(64)?/(\S*site-packages/)?([.~]?[A-Za-z_]+)?.*", r"\1\2/\5*"),
    (r"(/pip-[a-z-]+)-[a-z0-9_]{8}.*", r"\1-*"),
    (r"(/mlflow-artifacts/artifacts/).*", r"\1*"),
    (r"^(reports/[^/]*/).*/.*", r"\1*/*"),
    (r"(\.dvc/cache/files/|/dvc-data/files/)\S*?(\.dir)?(\.tmp|\.\S{22}\.tmp)?$", r"\1*\2\3"),
    (r"\.\S{22}\.tmp$", ".*.tmp"),
    (r"(?<=[/_])(train|val|test)(?=[/_.])", "*"),
    (r"(name|accessKey|policyName|userOrGroup)=(zenml|mlflow|dvc-user)", r"\1=*"),
    (r"/(zenml-artifacts|mlflow-artifacts|dvc-data)$", "/*"),
    (r"(?<![A-Za-z])m?-?[0-9a-f]{8}-?[0-9a-f-]{4,}", "#"),
    (r"(?<=/tmp)[a-z0-9_]{8}\b|(?<=/tmp/)[a-z0-9_]{8}$|(?<=[.-])[a-z0-9_]{8}(?=[/.]|$)", "#"),
    (r"\d+", "#"),
]
seen, busy, patched = {}, [], []


def point(kind, what, often=1, torn=None):
    what = str(what).replace(ROOT, "").replace("\n", " ")
    for pattern, same in SAME:
        what = re.sub(pattern, same, what)
    what = what[:150]
    if kind != "ends" and re.search(r"^(/dev|/proc|/sys)|__pycache__|\.stack/locks|points", what):
        return
    key = f"{WHO}: {kind} {what}"
    number = seen[key] = seen.get(key, 0) + 1
    if number > often:
        return
    if number > 1:
        key += f" ({number})"
    out = os.open(LIST, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(out, (key + "\n").encode())
    os.close(out)
    if key == AT:
        if torn:
            os.close(os.open(*torn, 0o600))
        os.killpg(os.getpgrp(), 9)


def patch():
    """Requests of aiohttp, which raise no audit event."""
    client = getattr(sys.modules.get("aiohttp.client"), "ClientSession", None)
    if patched or not hasattr(client, "_request"):
        return
    patched.append(True)
    original = client._request

    async def request(self, method, url, **named):
        if method.upper() in CHANGES and not LOOKS.search(str(url)):
            point(method.upper(), getattr(url, "raw_path_qs", url), 2)
        return await original(self, method, url, **named)

    client._request = request


def hook(event, arguments):
    if busy or event in ("object.__getattr__", "compile", "exec", "marshal.loads"):
        return
    busy.append(True)
    try:
        if event == "http.client.send":
            sent = bytes(arguments[1]) if isinstance(arguments[1], (bytes, bytearray)) else b""
            words = sent[:400].split(b"\r\n")[0].decode("latin1").split(" ")
            if len(words) == 3 and words[0] in CHANGES and not LOOKS.search(words[1]):
                point(words[0], words[1], 2)
        elif event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes, os.PathLike)) and (flags or 0) & WRITES:
                path = os.path.abspath(os.fsdecode(path))
                new = flags & os.O_TRUNC and not flags & os.O_EXCL
                point("writes", path, torn=(path, flags) if new else None)
        elif event in ("os.rename", "os.link", "os.symlink"):
            point(event[3:] + "s", os.path.abspath(os.fsdecode(arguments[1])))
        elif event == "shutil.rmtree" or (event == "os.remove" and arguments[1] == -1):
            point(event.split(".")[1], os.path.abspath(os.fsdecode(arguments[0])))
        elif event == "subprocess.Popen":
            point("runs", " ".join(os.path.basename(os.fsdecode(w)) for w in arguments[1][:2]))
        elif event == "import":
            patch()
    finally:
        busy.clear()


if LIST:
    atexit.register(point, "ends", "")
    sys.addaudithook(hook)
'''

BASH = r"""
unset() { builtin unset "$@" && export PYTHONPATH=$POINTS_PYTHON; } # scripts drop what is exported
__point() {
  local said=$1 bare chain
  case $said in
    '"$PYTHON_BIN" -'* | 'exec "$PYTHON_BIN"'*) chain='runs ' ;;
    *)
      bare=${said//>&[0-9]/} bare=${bare//> \/dev\/null/} bare=${bare//=> /}
      case ${said%% *} in
        mkdir | mv | rm | cp | touch | chmod | ln | '"$@"') ;;
        *) case $bare in *' > '* | '> '*) ;; *) return 0 ;; esac ;;
      esac
      chain="${FUNCNAME[*]:1}: " ;;
  esac
  said="${0##*/}: $chain$said"
  said=${said//$'\n'/ }
  case $said in *.stack/locks* | *printf*) return 0 ;; esac
  printf '%s\n' "${said:0:200}" >>"$POINTS_LIST"
  [ "${said:0:200}" != "${POINTS_KILL:-}" ] || kill -KILL 0
  return 0
}
case $0 in
  *scripts/*.sh)
    set -o functrace
    trap '__point "$BASH_COMMAND"' DEBUG
    ;;
esac
"""


def changes(points: list[str]) -> list[str]:
    """Of the points that change nothing by themselves (a process starts, or ends), the first after
    a change: killed at the others, the command leaves the same.
    """
    looks = [bool(re.search(r": (runs|ends) ", point)) for point in points]
    kept = [True, *(not (look and before) for look, before in zip(looks[1:], looks, strict=False))]
    return [point for point, keep in zip(points, kept, strict=True) if keep]


class Points:
    """Runs commands of a checkout, noting their points, or killing them at one."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self.checkout, self.list = checkout, folder / "points.list"
        (folder / "sitecustomize.py").write_text(PYTHON)
        (folder / "points.bash").write_text(BASH)
        self.variables = {
            "PYTHONPATH": str(folder),
            "POINTS_PYTHON": str(folder),
            "BASH_ENV": str(folder / "points.bash"),
            "POINTS_LIST": str(self.list),
            "POINTS_ROOT": str(checkout.root),
        }

    def _run(self, words: tuple[str, ...], at: str) -> tuple[int, str]:
        self.list.write_text("")
        checkout = Checkout(self.checkout.root, self.checkout.home, dict(self.checkout.variables))
        checkout.variables |= self.variables | {"POINTS_KILL": at}
        command = checkout.start(*words)
        try:
            printed, _ = command.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            command.kill()
            raise
        return command.returncode, printed

    def record(self, *words: str) -> list[str]:
        """Return the points of an undisturbed run, in order, each once."""
        status, printed = self._run(words, "")
        assert status == 0, printed
        points = list(dict.fromkeys(self.list.read_text().splitlines()))
        heard = [point for point in points if point.startswith(("src.", "pip: "))]
        assert heard, "Python was not listened to"
        return changes(points)

    def kill(self, at: str, *words: str) -> bool:
        """Whether the command came to the point, and died there."""
        status, printed = self._run(words, at)
        assert status in (0, -signal.SIGKILL), f"{at}\n{printed}"
        return status == -signal.SIGKILL
