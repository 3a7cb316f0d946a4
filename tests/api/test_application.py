"""What may be asked over HTTP, by whom, and how it is refused."""

from __future__ import annotations

import json

import anyio
import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pydantic import TypeAdapter
from schemathesis import checks
from schemathesis.core.parameters import ParameterLocation

from serried.api import spec as answers
from serried.api.application import application
from serried.control.spec import JobSpec
from tests.api.fake import FakeControl

TOKEN = "a-long-secret"
JOB = {"command": ["python", "train.py"], "workers": 2}


@pytest.fixture
def control(tmp_path) -> FakeControl:
    return FakeControl(tmp_path)


class Caller:
    """Calls the application in this process."""

    def __init__(self, control: FakeControl, **more) -> None:
        self.app = application(control, TOKEN, **more)

    def __call__(self, method: str, path: str, *, token: str | None = TOKEN, headers=None, **more) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://serried") as client:
                said = {"Authorization": f"Bearer {token}"} if token is not None else {}
                return await client.request(method, path, headers={**said, **(headers or {})}, **more)
        return anyio.run(call)


@pytest.fixture
def call(control) -> Caller:
    return Caller(control)


def refused(answer: httpx.Response, status: int, field: str = "") -> dict:
    assert answer.status_code == status
    said = TypeAdapter(answers.ErrorAnswer).validate_python(answer.json())
    assert said["schema"] == "serried/error/1"
    assert said["message"]
    assert not field or said["field"] == field
    return said


def test_a_job_from_submission_to_its_end(call):
    assert call("POST", "/v1/jobs", json=JOB).json() == {"schema": "serried/submitted/1", "job": 0}
    view = TypeAdapter(answers.JobAnswer).validate_python(call("GET", "/v1/jobs/0").json())["job"]
    assert (view.name, view.phase, len(view.ranks)) == ("python", "running", 2)
    assert call("GET", "/v1/jobs/0/why").json()["why"]["sentence"] == "It waits for 4 chips."
    assert call("GET", "/v1/jobs/0/history").json()["history"][0]["what"] == "submitted"
    assert call("POST", "/v1/jobs/0/cancel").json()["job"]["phase"] == "cancelled"


def test_the_same_key_again_is_the_same_job(call, control):
    key = {"Idempotency-Key": "once"}
    first, again = (call("POST", "/v1/jobs", json=JOB, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert len(control.specs) == 1
    refused(call("POST", "/v1/jobs", json=JOB | {"workers": 3}, headers=key), 422, "key")
    assert call("POST", "/v1/jobs", json=JOB).status_code == 201
    later = Caller(control)   # another life of the control plane
    assert later("POST", "/v1/jobs", json=JOB, headers=key).status_code == 200
    assert later("POST", "/v1/jobs", json=JOB).status_code == 201


def test_pages_and_filters(call):
    for tenant in ("research", None, "research"):
        call("POST", "/v1/jobs", json=JOB | {"tenant": tenant})
    page = call("GET", "/v1/jobs?limit=2").json()
    assert [job["number"] for job in page["jobs"]] == [0, 1]
    assert page["next_after"] == 1
    rest = call("GET", "/v1/jobs?limit=2&after=1").json()
    assert ([job["number"] for job in rest["jobs"]], rest["next_after"]) == ([2], None)
    assert [job["number"] for job in call("GET", "/v1/jobs?tenant=research").json()["jobs"]] == [0, 2]
    assert call("GET", "/v1/jobs?phase=failed").json()["jobs"] == []
    refused(call("GET", "/v1/jobs?phase=asleep"), 422, "phase")
    records = call("GET", "/v1/records?limit=2").json()
    assert (records["records"], records["next_after"]) == (['{"seq": 0}', '{"seq": 1}'], 1)


def test_nodes_are_drained_and_opened(call):
    assert [node["name"] for node in call("GET", "/v1/nodes").json()["nodes"]] == ["a", "b"]
    assert call("POST", "/v1/nodes/a/drain?why=fan").json()["node"]["state"] == "draining"
    assert call("POST", "/v1/nodes/a/open").json()["node"]["state"] == "up"
    refused(call("POST", "/v1/nodes/z/drain"), 404, "node")


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1]])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/usage", "/metrics", "/nowhere"])
def test_a_wrong_token_sees_nothing(call, token, path):
    said = refused(call("GET", path, token=token), 401, "Authorization")
    assert "endpoint.json" in said["remedy"]
    assert TOKEN not in json.dumps(said)


def test_health_needs_no_token(call, control):
    control.lost = True
    assert call("GET", "/healthz", token=None).text == "ok\n"


def test_bad_bodies(call, control):
    for body, field in ((b"", "body"), (b"{", "body"), (b"[1]", "job"), (b"\xff", "body"),
                        (b'{"comand": ["a"]}', "comand"),
                        (b'{"command": "a b"}', "command"), (b"[" * 100_000, "body"),
                        (b'{"command": ["a"], "directory": "here"}', "directory"),
                        (b'{"command": ["a"], "tenant": "nobody"}', "tenant")):
        refused(call("POST", "/v1/jobs", content=body), 422, field)
    refused(call("POST", "/v1/jobs", json=JOB, headers={"Idempotency-Key": "a b"}), 422, "idempotency-key")
    refused(call("GET", "/v1/jobs/one"), 422, "number")
    refused(call("GET", "/v1/jobs/7"), 404, "job")
    refused(call("GET", "/v1/nothing"), 404)
    assert "'tenant'" in refused(call("GET", "/v1/jobs?tenent=a"), 422, "tenent")["remedy"]
    refused(call("DELETE", "/v1/jobs"), 405)
    refused(call("POST", "/v1/down"), 409)
    assert not control.specs


def test_a_body_that_is_too_long(control):
    call = Caller(control, most_body_bytes=1000)
    refused(call("POST", "/v1/jobs", json={"command": ["x" * 2000]}), 413, "body")

    async def parts():
        for _ in range(20):
            yield b"x" * 100
    refused(call("POST", "/v1/jobs", content=parts()), 413, "body")
    refused(call("POST", "/v1/jobs", content=b"{}", headers={"Content-Length": "many"}), 413, "body")


def test_a_lost_ledger_asks_for_patience(call, control):
    control.lost = True
    answer = call("POST", "/v1/jobs", json=JOB)
    assert "same key" in refused(answer, 503)["message"]
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_fault_of_ours_is_told_without_its_inside(call, control):
    control.nodes = lambda: 1 / 0
    said = refused(call("GET", "/v1/nodes"), 500)
    assert "division" not in json.dumps(said)


def test_a_managed_workload_is_written_here(call, control):
    call("POST", "/v1/jobs", json={"workload": {"serve": "Qwen/Qwen3-8B", "chip": "h100", "layout": {"tp": 2}}})
    assert control.specs[0].argv[:2] == ("vllm", "serve")


def test_metrics_are_prometheus_text(call):
    from prometheus_client.parser import text_string_to_metric_families

    call("POST", "/v1/jobs", json=JOB)
    text = call("GET", "/metrics").text
    found = {(sample.name, *sample.labels.values()): sample.value
             for family in text_string_to_metric_families(text) for sample in family.samples}
    assert found["serried_submissions_total",] == 1
    assert found["serried_loop_lag_s",] == 0.01
    assert found["serried_chips", "idle"] == 7
    assert found["serried_jobs", "running"] == 1
    assert found["serried_http_request_seconds_count", "POST", "/v1/jobs", "201"] == 1


def test_down_is_handed_on(control):
    asked: list[bool] = []
    call = Caller(control, down=asked.append)
    assert call("POST", "/v1/down?jobs=true").status_code == 202
    assert asked == [True]


def test_logs_with_a_tail(call, control, tmp_path):
    call("POST", "/v1/jobs", json=JOB)
    (tmp_path / "0.0.1.1").write_text("1\n2\n")
    (tmp_path / "0.0.1").write_text("3\n4\n5")
    assert call("GET", "/v1/jobs/0/logs?rank=1").text == "1\n2\n3\n4\n5"
    for tail, text in ((0, ""), (1, "5"), (2, "4\n5"), (4, "2\n3\n4\n5"), (99, "1\n2\n3\n4\n5")):
        assert call("GET", f"/v1/jobs/0/logs?rank=1&tail={tail}").text == text
    assert call("GET", "/v1/jobs/0/logs?rank=0").text == ""
    refused(call("GET", "/v1/jobs/0/logs?rank=2"), 404, "rank")
    refused(call("GET", "/v1/jobs/9/logs"), 404, "job")


def _schema():
    control = FakeControl()
    for _ in range(3):
        control.end(control.submit(JobSpec(name="a", argv=("a",)), "").result())
    return schemathesis.openapi.from_asgi("/openapi.json", application(control, TOKEN))


schema = _schema()


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_is_answered_as_the_document_says(case):
    header = case.meta.components.get(ParameterLocation.HEADER) if case.meta else None
    mended = header is not None and header.mode.is_negative     # the token that is missing is the one that we send
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=[
        checks.positive_data_acceptance, *[checks.negative_data_rejection] * mended])
