"""What the servers hold, asked through their own APIs."""

from __future__ import annotations

from typing import Any

import boto3
import requests
from botocore.exceptions import ClientError

from tests.e2e.conftest import Checkout

EXPERIMENT = "cv_yolo_tiny"


def host(checkout: Checkout) -> str:
    """The host name that clients use."""
    return checkout.variables.get("BIND_ADDRESS", "localhost")


class MLflow:
    """MLflow's REST API."""

    def __init__(self, checkout: Checkout) -> None:
        port = checkout.variables.get("MLFLOW_PORT") or checkout.settings["MLFLOW_PORT"]
        self.url = f"http://{host(checkout)}:{port}"
        # Asked for only where the servers listen on an address that is not loopback.
        s = checkout.settings
        self.auth = (s["MLFLOW_ADMIN_USERNAME"], s["MLFLOW_ADMIN_PASSWORD"])

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        url = f"{self.url}/api/2.0/mlflow/{path}"
        answer = requests.post(url, json=body, auth=self.auth, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        url = f"{self.url}/api/2.0/mlflow/{path}"
        answer = requests.get(url, params=parameters, auth=self.auth, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def runs(self) -> dict[str, list[dict[str, Any]]]:
        """Every experiment's runs, by the experiment's name."""
        experiments = self.post("experiments/search", max_results=100)["experiments"]
        return {
            e["name"]: self.post("runs/search", experiment_ids=[e["experiment_id"]]).get("runs", [])
            for e in experiments
        }

    def artifacts(self, run_id: str) -> set[str]:
        listed = self.get("artifacts/list", run_id=run_id).get("files", [])
        return {file["path"] for file in listed}


def pairs(items: list[dict[str, Any]]) -> dict[str, Any]:
    """MLflow's lists of key and value as a mapping."""
    return {item["key"]: item["value"] for item in items}


class ZenML:
    """ZenML's REST API, signed in as the administrator."""

    def __init__(self, checkout: Checkout) -> None:
        s = checkout.settings
        port = checkout.variables.get("ZENML_PORT") or s["ZENML_PORT"]
        self.url = f"http://{host(checkout)}:{port}/api/v1"
        self.http = requests.Session()
        answer = self.http.post(
            f"{self.url}/login",
            data={"username": s["ZENML_ADMIN_USERNAME"], "password": s["ZENML_ADMIN_PASSWORD"]},
            timeout=30,
        )
        answer.raise_for_status()
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self.http.get(f"{self.url}/{path}", params=parameters, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def runs(self) -> list[dict[str, Any]]:
        return list(
            self.get("runs", project="default", hydrate=True, size=100, sort_by="asc:created")[
                "items"
            ]
        )

    def steps(self, run_id: str) -> dict[str, dict[str, Any]]:
        found = self.get("steps", project="default", pipeline_run_id=run_id, hydrate=True)["items"]
        return {step["name"]: step for step in found}

    def log_lines(self, step: dict[str, Any]) -> list[str]:
        """A step's log as the server reads it from the artifact store."""
        (logs,) = [
            log for log in step["resources"]["log_collection"] if log["body"]["source"] == "step"
        ]
        entries = self.get(f"steps/{step['id']}/logs", logs_id=logs["id"])
        return [entry["message"] for entry in entries]


class Store:
    """The object store over S3, as one of its users."""

    def __init__(self, checkout: Checkout, user: str) -> None:
        s = checkout.settings
        names = {
            "root": ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
            "zenml": ("ZENML_S3_ACCESS_KEY", "ZENML_S3_SECRET_KEY"),
            "mlflow": ("MLFLOW_S3_ACCESS_KEY", "MLFLOW_S3_SECRET_KEY"),
            "dvc": ("DVC_S3_ACCESS_KEY", "DVC_S3_SECRET_KEY"),
        }[user]
        port = checkout.variables.get("MINIO_PORT") or s["MINIO_PORT"]
        self.s3 = boto3.client(
            "s3",
            endpoint_url=f"http://{host(checkout)}:{port}",
            aws_access_key_id=s[names[0]],
            aws_secret_access_key=s[names[1]],
            region_name="us-east-1",
        )

    def keys(self, bucket: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def refused(self, operation: str, **arguments: Any) -> bool:
        """Whether the store denies this user an operation."""
        try:
            getattr(self.s3, operation)(**arguments)
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        return False
