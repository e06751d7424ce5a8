"""The few requests to a Prefect server that the tests make, as any client would make them."""

import time
from typing import Any

import httpx

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class PrefectApi:
    """A Prefect server by its address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = httpx.Client(base_url=f"{address}/api", timeout=30)

    def send(self, method: str, path: str, body: Any = None, check: bool = True) -> Any:
        answer = self.client.request(method, path, json=body)
        while answer.status_code == 503:  # the database is busy: Prefect's own client tries again, too
            time.sleep(1)
            answer = self.client.request(method, path, json=body)
        assert not check or answer.is_success, f"{path}: {answer.status_code} {answer.text[:2000]}"
        return answer if not check else (answer.json() if answer.content else None)

    def deployment(self, name: str) -> dict[str, Any]:
        return self.send("GET", f"/deployments/name/{name}")

    def start(self, deployment: str, parameters: dict[str, Any] | None = None) -> str:
        """Create a run and return its id."""
        identity = self.deployment(deployment)["id"]
        return self.send("POST", f"/deployments/{identity}/create_flow_run", {"parameters": parameters or {}})["id"]

    def flow_run(self, identity: str) -> dict[str, Any]:
        return self.send("GET", f"/flow_runs/{identity}")

    def wait(self, identity: str, states: set[str] = FINAL, patience: float = 400) -> dict[str, Any]:
        """Wait until the run is in one of the states; return the state."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            state = self.flow_run(identity)["state"]
            if state["type"] in states:
                return state
            time.sleep(0.5)
        raise AssertionError(f"{state['type']} after {patience} s\n{self.log(identity)[-3000:]}")

    def run(self, deployment: str, parameters: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Run a deployment to its end."""
        identity = self.start(deployment, parameters)
        return identity, self.wait(identity)

    def log(self, identity: str) -> str:
        """All lines of the run and its tasks."""
        lines: list[str] = []
        while True:
            body = {
                "logs": {"flow_run_id": {"any_": [identity]}},
                "sort": "TIMESTAMP_ASC",
                "limit": 200,
                "offset": len(lines),
            }
            more = self.send("POST", "/logs/filter", body)
            lines += [line["message"] for line in more]
            if len(more) < 200:
                return "\n".join(lines)

    def artifacts(self, identity: str) -> dict[str, Any]:
        """The data of each artifact of a run by its key."""
        body = {"artifacts": {"flow_run_id": {"any_": [identity]}}, "limit": 200}
        return {item["key"]: item["data"] for item in self.send("POST", "/artifacts/filter", body) if item["key"]}

    def tasks(self, identity: str) -> list[dict[str, Any]]:
        body = {"task_runs": {"flow_run_id": {"any_": [identity]}}, "limit": 200}
        return self.send("POST", "/task_runs/filter", body)
