"""The one error path: what a command says when it fails, each kind by the library's own error."""

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src import errors
from src.errors import UserError, explain, run_command
from src.zenml_pipelines.outcome import Failed, Finished, Stopped, outcome_of


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(errors, "_ROOT", tmp_path)
    monkeypatch.setattr(errors, "LOG", tmp_path / ".stack" / "errors.log")
    monkeypatch.delenv("DEBUG", raising=False)
    return tmp_path / ".stack" / "errors.log"


@pytest.fixture
def closed() -> Iterator[str]:
    """Yield the address of a port at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def raiser(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def said_by(work: Callable[[], object]) -> str:
    """Return the explanation of what a library raises."""
    with pytest.raises(Exception) as caught:
        work()
    explained = explain(caught.value)
    assert explained is not None, repr(caught.value)
    return explained


class TestCommand:
    @pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
    def test_a_commands_own_status_counts(self, returned: int | None, status: int) -> None:
        assert run_command(lambda: returned) == status

    def test_what_the_user_can_mend_is_said_and_not_logged(
        self, log: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run_command(raiser(UserError("A is wrong: mend A\nB is wrong: mend B"))) == 1
        assert capsys.readouterr() == ("", "error: A is wrong: mend A\nB is wrong: mend B\n")
        assert not log.parent.exists()

    def test_ctrl_c(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(raiser(KeyboardInterrupt())) == 130
        assert capsys.readouterr().err == "interrupted: the same command carries on\n"

    def test_the_unforeseen_is_one_line_that_names_a_private_log(
        self, log: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for message in ("first\nwith details", "second"):
            assert run_command(raiser(RuntimeError(message))) == 1
        first, second = capsys.readouterr().err.splitlines()
        assert first == "error: RuntimeError: first; the traceback is in .stack/errors.log"
        assert "second" in second
        text = log.read_text()
        assert text.count("Traceback (most recent call last)") == 2
        assert "with details" in text
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700

    def test_a_log_that_cannot_be_written_hides_nothing(
        self, log: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log.parent.write_text("a file where the folder should be")
        assert run_command(raiser(RuntimeError("no good"))) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: RuntimeError: no good; ")
        assert "Traceback (most recent call last)" in said

    @pytest.mark.parametrize("error", [RuntimeError("no good"), UserError("mend it")])
    def test_debug_shows_the_traceback(
        self,
        error: Exception,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("DEBUG", "1")
        assert run_command(raiser(error)) == 1
        assert "Traceback (most recent call last)" in capsys.readouterr().err


class TestFiles:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert said_by((tmp_path / "a/b.yaml").read_text) == "a/b.yaml: no such file"

    def test_a_folder_where_a_file_is_wanted(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        assert said_by((tmp_path / "a").read_bytes) == "a: a folder, where a file is wanted"

    def test_a_file_that_one_may_not_read(self, tmp_path: Path) -> None:
        error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x"))
        assert explain(error) == "x: you may not read or write it"

    def test_a_file_that_is_not_utf_8_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "x.txt").write_bytes(b"abc\xff")
        read = (tmp_path / "x.txt").read_text
        assert said_by(lambda: read(encoding="utf-8")) == "x.txt: not UTF-8 text (byte 3)"

        def read_lines() -> None:  # as libraries do
            with open(tmp_path / "x.txt", encoding="utf-8") as file:  # noqa: PTH123
                list(file)

        assert said_by(read_lines) == "x.txt: not UTF-8 text (byte 3)"

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk(self, number: int) -> None:
        full = OSError(number, os.strerror(number), "/there/file")
        told = "the disk is full, or your share of it (/there/file): make room, then the same"
        assert (explain(full) or "").startswith(told)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    def test_a_full_disk_behind_a_librarys_error(self) -> None:
        def save() -> None:
            try:
                with open("/dev/full", "w") as file:  # noqa: PTH123
                    file.write("x")
            except OSError as error:
                raise RuntimeError("can't save") from error

        assert "the disk is full" in said_by(save)

    def test_an_error_on_the_way_explains_no_other(self) -> None:
        def work() -> None:
            try:
                Path("/none").read_text()
            except FileNotFoundError:
                raise KeyError("a fault of ours")  # noqa: B904

        with pytest.raises(KeyError) as caught:
            work()
        assert explain(caught.value) is None


class TestConnections:
    def test_requests(self, closed: str) -> None:
        import requests

        said = said_by(lambda: requests.get(f"http://{closed}/x", timeout=5))
        assert said == f"{closed} does not answer: make up, then the same command again"

    def test_a_request_that_gets_no_answer_in_time(self) -> None:
        import requests

        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            said = said_by(lambda: requests.get(f"http://{address}", timeout=0.2))
        assert said.startswith(f"{address} does not answer")

    def test_urllib3(self, closed: str) -> None:
        import urllib3

        said = said_by(
            lambda: urllib3.PoolManager(retries=False).request("GET", f"http://{closed}")
        )
        assert said.startswith(f"{closed} does not answer: make up")

    def test_s3(self, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
        import boto3
        from botocore.config import Config

        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{closed}",
            aws_access_key_id="x",
            aws_secret_access_key="x",
            region_name="x",
            config=Config(retries={"max_attempts": 0}),
        )
        assert said_by(client.list_buckets).startswith(f"{closed} does not answer: make up")

    def test_mlflow(self, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlflow import MlflowClient

        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        said = said_by(MlflowClient(f"http://{closed}").search_experiments)
        assert said.startswith(f"{closed} does not answer: make up")

    def test_an_error_for_an_answer(self) -> None:
        import requests

        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

            threading.Thread(target=answer).start()
            said = said_by(requests.get(f"http://{address}", timeout=5).raise_for_status)
        assert said.startswith(f"{address} answers with an error (500 Server Error")
        assert said.endswith("see make logs")


class TestLibraries:
    def test_dvcs_lock_held_by_another(self, tmp_path: Path) -> None:
        from dvc.lock import Lock

        class Impatient(Lock):  # DVC's own tries for 3 s
            def lock(self) -> None:
                self._do_lock()

        with Impatient(str(tmp_path / "lock")):
            said = said_by(Impatient(str(tmp_path / "lock")).lock)
        assert said == (
            "another DVC is at work in this checkout: let it end, then the same command again"
        )

    @pytest.mark.parametrize("text", ["stages: [", "\tx", "schema: '9'"])
    @pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock"])
    def test_dvcs_broken_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
    ) -> None:
        from dvc.repo import Repo

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
        repo = Repo.init(no_scm=True)
        (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo}}")
        (tmp_path / name).write_text(text)
        said = said_by(repo.status)
        assert said.startswith("DVC: ")
        assert name in said
        assert said.endswith("mend the file, or take it back with git checkout")

    def test_another_fault_of_dvcs(self) -> None:
        from dvc.exceptions import UploadError

        assert explain(UploadError(3)) == "DVC: 3 files failed to upload"

    def test_mlflows_refusal(self) -> None:
        from mlflow.exceptions import RestException

        refusal = RestException({"error_code": "INVALID_STATE", "message": "No.\nDetails"})
        assert explain(refusal) == "MLflow refuses: INVALID_STATE: No."

    def test_zenmls_refusals(self) -> None:
        from zenml.exceptions import CredentialsNotValid, IllegalOperationError

        said = explain(CredentialsNotValid("error decoding access token"))
        assert said is not None
        assert "ZenML refuses this checkout's API key" in said
        assert "make stack" in said
        assert explain(IllegalOperationError("not now")) == "ZenML: not now"

    def test_a_clock_that_the_store_refuses(self) -> None:
        from botocore.exceptions import ClientError

        told = {"Code": "RequestTimeTooSkewed", "Message": "The difference is too large."}
        error = OSError(5, "The difference is too large.")  # s3fs's own
        error.__cause__ = ClientError({"Error": told}, "PutObject")
        assert (explain(error) or "").startswith("the clocks of this machine and the object store")

    def test_servers_on_a_full_disk_answer_and_store_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import requests
        from mlflow.exceptions import MlflowException

        monkeypatch.setattr(errors, "full_disk", lambda: "the disk of .stack is full")
        for error in (
            requests.ConnectionError("read timed out"),
            MlflowException("database or disk is full"),
        ):
            told = "the disk of .stack is full: make room, then the same command again"
            assert explain(error) == told

    def test_the_object_stores_refusal_behind_a_file_systems_error(self) -> None:
        from botocore.exceptions import ClientError

        refusal = ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "PutObject")

        def work() -> None:
            raise PermissionError("Forbidden") from refusal  # as s3fs does

        said = said_by(work)
        assert said.startswith("the object store refuses (An error occurred (403)")
        assert "make stack" in said

    def test_not_enough_memory(self) -> None:
        import torch

        def too_much() -> None:
            torch.empty(10**14)

        for error in (torch.OutOfMemoryError("CUDA out of memory."), MemoryError()):
            assert "a smaller BATCH or IMGSZ" in (explain(error) or "")
        assert "a smaller BATCH or IMGSZ" in said_by(too_much)

    def test_an_error_raised_from_itself_comes_to_an_end(self) -> None:
        error = ValueError("x")
        error.__cause__ = error
        assert explain(error) is None

    def test_other_errors_are_nobodys(self) -> None:
        assert explain(ValueError("x")) is None
        assert explain(KeyError("x")) is None


class TestCells:
    def test_a_finished_cell(self) -> None:
        finished = Finished({}, False, 1.0, "http://zenml/1")
        assert outcome_of(lambda: finished) is finished

    def test_ctrl_c_stops_a_cell(self) -> None:
        assert outcome_of(raiser(KeyboardInterrupt())) == Stopped()  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (UserError("mend it"), "mend it"),
            (FileNotFoundError(errno.ENOENT, "", "/x"), "/x: no such file"),
            (ValueError("first\nsecond"), "ValueError: first"),
            (AssertionError(), "AssertionError"),
        ],
    )
    def test_an_error_is_said_as_a_command_says_it(self, error: Exception, reason: str) -> None:
        outcome = outcome_of(raiser(error))  # type: ignore[arg-type]
        assert isinstance(outcome, Failed)
        assert outcome.reason == reason
        assert ("Traceback" in outcome.trace) is (explain(error) is None)
