"""Turn a bulk deletion that the object store refuses into single ones, for every AWS client here.

JuiceFS's gateway wants Content-MD5 with ``DeleteObjects``, which current AWS SDKs no longer send
(juicedata/juicefs#6606), and answers ``MissingContentMD5`` before it has deleted anything. With the
header added it leaves ghosts of the keys' folders; single deletions leave none.

``python bulk_deletion.py`` installs this file in the Python that runs it, in ``.venv`` and in the
images alike. From then on it takes effect when botocore or aiobotocore is imported, in any program
of that Python, and does nothing before. Standard library only.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would cost every start of Python more than all of this
if TYPE_CHECKING:
    from typing import Any

NAME = "zenml_cv_yolo_bulk_deletion"  # what it is called where it is installed
CLIENTS = {"botocore.client": "BaseClient", "aiobotocore.client": "AioBaseClient"}
REFUSED = "MissingContentMD5"
# What DeleteObjects takes for one of its objects, and for all of them, in DeleteObject's terms.
OF_ONE = {
    "Key": "Key",
    "VersionId": "VersionId",
    "ETag": "IfMatch",
    "LastModifiedTime": "IfMatchLastModifiedTime",
    "Size": "IfMatchSize",
}
OF_ALL = ("Bucket", "MFA", "RequestPayer", "BypassGovernanceRetention", "ExpectedBucketOwner")


class Deletion:
    """A refused ``DeleteObjects``: the single requests, and the answer made of theirs."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        """Take the parameters of ``DeleteObjects``."""
        self._shared = {name: parameters[name] for name in OF_ALL if name in parameters}
        self._objects = parameters["Delete"]["Objects"]
        self._quiet = bool(parameters["Delete"].get("Quiet"))
        self._deleted: list[dict[str, Any]] = []
        self._errors: list[dict[str, Any]] = []
        self._metadata: dict[str, Any] = {"HTTPStatusCode": 200}

    def requests(self) -> list[dict[str, Any]]:
        """Return the parameters of a ``DeleteObject`` for each object."""
        return [
            self._shared | {theirs: item[name] for name, theirs in OF_ONE.items() if name in item}
            for item in self._objects
        ]

    def done(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Take note of an object that is gone."""
        named = self._named(request)
        if answer.get("DeleteMarker"):
            named |= {"DeleteMarker": True, "DeleteMarkerVersionId": answer.get("VersionId", "")}
        self._deleted.append(named)
        self._metadata = answer["ResponseMetadata"] | {"HTTPStatusCode": 200}

    def failed(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Take note of an object that the store refuses to delete."""
        error = answer["Error"]
        self._errors.append(
            self._named(request) | {name: error.get(name, "") for name in ("Code", "Message")}
        )

    def _named(self, request: dict[str, Any]) -> dict[str, Any]:
        return {name: request[name] for name in ("Key", "VersionId") if name in request}

    def answer(self) -> dict[str, Any]:
        """Return the answer of ``DeleteObjects``."""
        answer: dict[str, Any] = {"ResponseMetadata": self._metadata}
        if self._deleted and not self._quiet:
            answer["Deleted"] = self._deleted
        if self._errors:
            answer["Errors"] = self._errors
        return answer


def refused(operation: str, answer: dict[str, Any]) -> bool:
    """Tell whether the store refuses a bulk deletion for want of Content-MD5."""
    return operation == "DeleteObjects" and answer["Error"].get("Code") == REFUSED


def blocking(call: Any) -> Any:
    """Wrap ``BaseClient._make_api_call``."""
    from botocore.exceptions import ClientError

    def make_api_call(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        try:
            return call(self, operation, parameters)
        except ClientError as error:
            if not refused(operation, error.response):
                raise
        deletion = Deletion(parameters)
        for request in deletion.requests():
            try:
                deletion.done(request, call(self, "DeleteObject", request))
            except ClientError as error:
                deletion.failed(request, error.response)
        return deletion.answer()

    return make_api_call


def awaiting(call: Any) -> Any:
    """Wrap ``AioBaseClient._make_api_call``."""
    from botocore.exceptions import ClientError

    async def make_api_call(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        try:
            return await call(self, operation, parameters)
        except ClientError as error:
            if not refused(operation, error.response):
                raise
        deletion = Deletion(parameters)
        for request in deletion.requests():
            try:
                deletion.done(request, await call(self, "DeleteObject", request))
            except ClientError as error:
                deletion.failed(request, error.response)
        return deletion.answer()

    return make_api_call


def patch(module: Any) -> None:
    """Wrap the call of a client module that was just imported; a second time changes nothing."""
    wrap = blocking if module.__name__ == "botocore.client" else awaiting
    client = getattr(module, CLIENTS[module.__name__])
    call = client.__dict__["_make_api_call"]
    if call.__module__ != __name__:
        client._make_api_call = wrap(call)


class Finder:
    """Stands before Python's own finders and has the two client modules patched once they ran."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return None for every other module: the next finder's turn."""
        if name not in CLIENTS:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and not isinstance(finder, Finder) else None
            if spec is not None and spec.loader is not None:
                spec.loader = Loader(spec.loader)
                return spec
        return None


class Loader:
    """Python's own loader, and the patch."""

    def __init__(self, loader: Any) -> None:
        """Take the loader of the module."""
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        """Be the loader in everything else."""
        return getattr(self._loader, name)

    def exec_module(self, module: Any) -> None:
        """Run the module, then patch it."""
        self._loader.exec_module(module)
        patch(module)


def install() -> None:
    """Copy this file where the Python that runs it finds it, with a line that starts it."""
    import py_compile
    import shutil
    import sysconfig
    from pathlib import Path

    module = Path(sysconfig.get_path("purelib")) / f"{NAME}.py"
    shutil.copyfile(__file__, module)
    py_compile.compile(str(module), doraise=True)
    # site.py runs this line at every start.
    module.with_suffix(".pth").write_text(f"import {NAME}\n", encoding="utf-8")


if __name__ == "__main__":
    install()
elif __name__ == NAME:
    sys.meta_path.insert(0, Finder())
