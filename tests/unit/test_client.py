"""A process as a client of this checkout's stack."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from src import client
from src import settings as settings_module
from src.client import client_environment, last_sign_in, use_stack
from src.files import write_private
from src.settings import Settings

PRIVATE_PATHS = (
    "ZENML_CONFIG_PATH",
    "DVC_SITE_CACHE_DIR",
    "YOLO_CONFIG_DIR",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
)


class TestClientEnvironment:
    @pytest.fixture(autouse=True)
    def _state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (client, settings_module):
            monkeypatch.setattr(module, "STATE", tmp_path / ".stack")
        self.state = tmp_path / ".stack"

    def test_configuration_and_caches_stay_in_the_checkout(self, settings: Settings) -> None:
        environment = client_environment(settings)
        for name in PRIVATE_PATHS:
            assert Path(environment[name]).is_relative_to(self.state), name
        assert environment["ZENML_STORE_URL"] == settings.zenml_url
        assert environment["MLFLOW_TRACKING_URI"] == settings.mlflow_url

    def test_nothing_calls_home(self, settings: Settings) -> None:
        environment = client_environment(settings)
        assert environment["ZENML_ANALYTICS_OPT_IN"] == "false"
        assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert environment["DVC_NO_ANALYTICS"] == "true"
        assert environment["DO_NOT_TRACK"] == "true"
        assert environment["YOLO_OFFLINE"] == "true"

    def test_no_proxy_stands_between_this_machine_and_itself(
        self, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_PROXY", "intra.example.org")
        monkeypatch.setenv("no_proxy", "lower.example.org, 10.0.0.0/8")
        environment = client_environment(make_settings(bind_address="192.168.1.20"))
        excepted = environment["NO_PROXY"].split(",")
        assert {"localhost", "192.168.1.20", "intra.example.org"} <= set(excepted)
        assert {"lower.example.org", "10.0.0.0/8"} <= set(excepted)
        assert environment["no_proxy"] == environment["NO_PROXY"]

    def test_the_api_key_is_there_once_the_stack_is_registered(self, settings: Settings) -> None:
        assert "ZENML_STORE_API_KEY" not in client_environment(settings)
        write_private(settings.api_key_file, "ZENKEY_1\n")
        assert client_environment(settings)["ZENML_STORE_API_KEY"] == "ZENKEY_1"

    @pytest.mark.parametrize("torn", [b"a: [", b"a: \xff"])
    def test_what_is_torn_of_zenml_s_configuration_is_deleted(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, torn: bytes
    ) -> None:
        monkeypatch.setattr(os, "environ", {})
        folder = settings.backend_state / "zenml-client"
        write_private(folder / "credentials.yaml", "a: 1\n")
        (folder / "config.yaml").write_bytes(torn)
        (folder / "deleted-meanwhile.yaml").symlink_to("nowhere")
        use_stack(settings)
        (folder / "deleted-meanwhile.yaml").unlink()
        assert [file.name for file in folder.iterdir()] == ["credentials.yaml"]

    def test_a_sign_in_that_zenml_keeps_is_not_repeated(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file as ZenML 0.98 writes it; what a killed one has left counts for nothing."""
        monkeypatch.setattr(os, "environ", {"ZENML_STORE_API_KEY": "ZENKEY_of-somebody"})
        write_private(settings.api_key_file, "ZENKEY_1==\n")
        file = settings.backend_state / "zenml-client" / "credentials.yaml"
        key, token = "  api_key: ZENKEY_1==\n", "  api_token:\n    access_token: eyJ.e30.x\n"
        write_private(file, f"{settings.zenml_url}:\n{key}{token}  url: {settings.zenml_url}\n")
        use_stack(settings)
        assert "ZENML_STORE_API_KEY" not in os.environ
        assert last_sign_in(settings)["api_token"] == {"access_token": "eyJ.e30.x"}
        for text in (
            f"http://localhost:1:\n{key}{token}",  # another port's
            f"{settings.zenml_url}:\n{key}".replace("_1", "_0"),
            f"{settings.zenml_url}:\n  api_k",
            f"{settings.zenml_url}:\n",
            "",
            "[",
        ):
            write_private(file, text)
            assert client_environment(settings)["ZENML_STORE_API_KEY"] == "ZENKEY_1==", text

    @pytest.mark.parametrize(
        "name",
        [
            *("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL", "FSSPEC_S3_ANON"),
            *("MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_AUTH"),
            *("MLFLOW_WORKSPACE", "ZENML_ACTIVE_STACK_ID", "ZENML_LOCAL_STORES_PATH"),
            *("ZENML_SECRETS_STORE_TYPE", "ZENML_STORE_API_TOKEN", "ZENML_STORE_VERIFY_SSL"),
        ],
    )
    def test_what_would_lead_elsewhere_is_dropped(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(os, "environ", {name: "a-person-s-own", "PATH": "/bin"})
        use_stack(settings)
        assert name not in os.environ
        assert os.environ["PATH"] == "/bin"

    def test_dvc_does_not_see_the_user_s_own_configuration(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from dvc.config import Config

        own = tmp_path / "dvc"
        own.mkdir()
        (own / "config").write_text("[cache]\n    dir = /elsewhere\n")
        for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            monkeypatch.setenv(name, str(own))
            assert Config()["cache"]["dir"] == "/elsewhere"
        for name, value in client_environment(settings).items():
            monkeypatch.setenv(name, value)
        assert "dir" not in Config()["cache"]

    def test_a_ci_runner_s_api_key_stays(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "environ", {"ZENML_STORE_API_KEY": "ZENKEY_2"})
        use_stack(settings)
        assert os.environ["ZENML_STORE_API_KEY"] == "ZENKEY_2"


class TestCommand:
    """A command in place of this process."""

    @pytest.fixture(autouse=True)
    def _stack(self, monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path) -> None:
        self.shared = tmp_path / "shared"
        self.shared.mkdir()
        monkeypatch.setenv("ZENML_CONFIG_PATH", str(self.shared))
        monkeypatch.setenv("ZENML_ACTIVE_STACK_ID", "ours")
        monkeypatch.setenv("ZENML_LOCAL_STORES_PATH", "")  # so that main's own is undone
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(type(settings), "backend_state", tmp_path / "state")
        monkeypatch.setattr(client, "load_settings", lambda: settings)
        monkeypatch.setattr(client, "use_stack", lambda settings: None)

    def test_one_that_is_not_there_is_127(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert client.main(str(tmp_path), "no-such-command") == 127
        assert capsys.readouterr().err == "error: no-such-command can't be run: no such file\n"

    @pytest.mark.parametrize(
        ("folder", "script", "kept"),
        [
            (settings_module.ROOT, "src/client.py", True),
            (settings_module.ROOT / "src", "client.py", True),
            (settings_module.ROOT, "{outside}/own.py", False),
            ("{outside}", "own.py", False),
            ("{outside}", str(settings_module.ROOT / "src" / "client.py"), False),
        ],
    )
    def test_steps_are_found_where_the_command_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: object, script: str,
        kept: bool,
    ) -> None:  # fmt: skip
        name = "ZENML_CUSTOM_SOURCE_ROOT"
        (tmp_path / "own.py").touch()
        monkeypatch.setattr(client, "use_stack", lambda _: os.environ.update({name: "checkout"}))
        seen: list[str | None] = []
        monkeypatch.setattr(os, "execvp", lambda *_: seen.append(os.environ.get(name)))
        monkeypatch.chdir(tmp_path)  # so that main's own change of folder is undone
        words = ["python", script.format(outside=tmp_path)]
        monkeypatch.delenv(name, raising=False)
        client.main(str(folder).format(outside=tmp_path), *words)
        monkeypatch.setenv(name, "the user's own")
        client.main(str(folder).format(outside=tmp_path), *words)
        assert seen == ["checkout" if kept else None, "the user's own"]

    @pytest.mark.parametrize("active", ["active_stack_id: theirs\n", ""])
    def test_each_has_a_copy_of_zenml_s_configuration(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: str
    ) -> None:
        """ZenML writes it in place: of many at once, one would read half of it."""
        (self.shared / "config.yaml").write_text(active)
        seen: dict[str, str] = {}
        monkeypatch.setattr(os, "execvp", lambda *_: seen.update(os.environ))
        monkeypatch.chdir(tmp_path)
        client.main(str(tmp_path), "python")
        own = Path(seen["ZENML_CONFIG_PATH"])
        assert own != self.shared
        assert (own / "config.yaml").read_text() == active
        assert seen["ZENML_LOCAL_STORES_PATH"] == str(self.shared / "local_stores")
        assert seen.get("ZENML_ACTIVE_STACK_ID") == (None if active else "ours")

    @pytest.mark.parametrize("command", ["zenml", "/bin/bash"])
    def test_what_zenml_stack_set_sets_is_there_for_all(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        seen: dict[str, str] = {}
        monkeypatch.setattr(os, "execvp", lambda *_: seen.update(os.environ))
        monkeypatch.chdir(tmp_path)
        client.main(str(tmp_path), command)
        assert seen["ZENML_CONFIG_PATH"] == str(self.shared)
        assert "ZENML_ACTIVE_STACK_ID" not in seen

    def test_a_folder_that_is_not_there_is_127(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert client.main(str(tmp_path / "none"), "ls") == 127
        assert "no such file" in capsys.readouterr().err
