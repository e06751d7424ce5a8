"""Who is told of what: the block and the automations as a Prefect server takes them, and the messages that it writes.

`tests/e2e/test_alerts.py` has a real server send them.
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from listeners import mail_server, webhook
from prefect.server.events.actions import JinjaTemplateAction
from prefect.server.events.schemas.automations import AutomationCreate
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.schemas.core import FlowRun
from prefect.server.utilities.user_templates import render_user_template_sync

from deploy import alerts
from deploy.alerts import ENDED_BADLY, STUCK, Receiver
from deploy.registration import ENDED
from deploy.services import ServiceError
from flows import states

MINUTE = timedelta(seconds=60)
HOSTILE = 'x.csv: "5 < 6" & </script> <!channel> {{ 7 * 7 }}\nnext \\ line'


def receiver(url: str, form: str = "") -> Receiver:
    found = Receiver.of({"NTULM_ALERT_URL": url, "NTULM_ALERT_FORM": form})
    assert found is not None
    return found


def created(url="https://example.org/hook", form="") -> dict[str, Any]:
    """The automations as the server reads them from its client."""
    found = alerts.automations(receiver(url, form), uuid4(), MINUTE)
    return {one.name: AutomationCreate.model_validate(one.model_dump(mode="json")) for one in found}


def event(name: str, kind: str, flow: str = "retrain", tags: tuple[str, ...] = ("ntulm",), message: str | None = None):
    resource = {"prefect.resource.id": f"prefect.flow-run.{uuid4()}", "prefect.state-name": name}
    resource |= {"prefect.state-type": kind, "prefect.state-message": message or ""}
    related = [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in tags]
    about = {"prefect.resource.id": f"prefect.flow.{uuid4()}", "prefect.resource.role": "flow"}
    related.append(about | {"prefect.resource.name": flow})
    about_it = {"occurred": datetime(2026, 1, 2, tzinfo=UTC), "event": f"prefect.flow-run.{name}", "id": uuid4()}
    return ReceivedEvent.model_validate(about_it | {"resource": resource, "related": related})


@pytest.mark.parametrize(
    ("name", "kind", "flow", "tags", "told"),
    [
        ("Failed", "FAILED", "build", ("ntulm",), True),
        ("Crashed", "CRASHED", "monitor", ("ntulm", "other"), True),
        ("TimedOut", "FAILED", "embed", ("ntulm",), True),
        (states.REFUSED, "FAILED", "retrain", ("ntulm",), True),
        (states.DRIFTED, "FAILED", "monitor", ("ntulm",), True),
        (states.QUIET, "COMPLETED", "monitor", ("ntulm",), False),
        (states.NO_MODEL, "COMPLETED", "embed", ("ntulm",), False),
        ("Completed", "COMPLETED", "build", ("ntulm",), False),
        ("Cancelled", "CANCELLED", "build", ("ntulm",), False),
        ("Running", "RUNNING", "build", ("ntulm",), False),
        ("Failed", "FAILED", "stage", ("ntulm",), False),  # its build fails with it
        ("Failed", "FAILED", "somebody-elses", (), False),
    ],
)
def test_of_which_ends_somebody_is_told(name, kind, flow, tags, told):
    assert created()[ENDED_BADLY].trigger.covers(event(name, kind, flow, tags)) == told


def test_a_run_that_no_worker_takes_is_told_and_one_that_starts_is_not():
    trigger = created()[STUCK].trigger
    assert trigger.within == MINUTE
    late = event("Late", "SCHEDULED", "stage")
    assert trigger.covers(late)
    assert trigger.starts_after(late.event)
    assert not trigger.expects(late.event)
    for name in ("Pending", "Running", "Cancelled", "Completed", *states.NAMES):
        assert trigger.expects(f"prefect.flow-run.{name}"), name
    assert not trigger.covers(event("Late", "SCHEDULED", tags=()))


def test_a_run_that_ended_in_a_state_of_our_own_is_not_taken_for_dead():
    assert {f"prefect.flow-run.{name}" for name in states.NAMES} < ENDED


def rendered(template: str, name: str, message: str | None) -> str:
    """A template as the server fills it in."""
    JinjaTemplateAction._register_filters_if_needed()
    JinjaTemplateAction.validate_template(template, "payload")
    context = {
        "event": event(name, "FAILED", message=message),
        "flow": SimpleNamespace(name="retrain"),
        "flow_run": FlowRun(name="calm-otter", flow_id=uuid4()),
        "deployment": SimpleNamespace(name="retrain"),
    }
    return render_user_template_sync(template, context)


def test_a_plain_message_is_json_with_the_reason_whatever_stands_in_it():
    (action,) = created()[ENDED_BADLY].actions
    sent = json.loads(rendered(action.payload, states.REFUSED, HOSTILE))
    assert set(sent) == {"from", "what", "flow", "deployment", "run", "state", "message", "at", "address"}
    assert (sent["what"], sent["state"]) == ("did not take the new posts", "Refused")
    assert sent["message"] == HOSTILE
    assert (sent["flow"], sent["run"], sent["at"]) == ("retrain", "calm-otter", "2026-01-02T00:00:00+00:00")


def test_slack_gets_a_text_without_markup_from_the_reason():
    (action,) = created("https://hooks.slack.com/services/T0/B0/x")[ENDED_BADLY].actions
    sent = json.loads(rendered(action.payload, "Failed", HOSTILE))
    assert set(sent) == {"text"}
    assert sent["text"].startswith("retrain failed (run calm-otter, deployment retrain). x.csv:")
    assert "&lt;!channel&gt;" in sent["text"]
    assert "<" not in sent["text"]


def test_a_long_reason_is_cut_and_none_is_empty():
    (action,) = created()[ENDED_BADLY].actions
    assert len(json.loads(rendered(action.payload, "Failed", "x" * 9000))["message"]) == alerts.LONGEST
    assert json.loads(rendered(action.payload, "A state of later", None))["message"] == ""
    assert json.loads(rendered(action.payload, "A state of later", None))["what"] == "A state of later"


def test_a_late_run_says_for_how_long():
    (action,) = created()[STUCK].actions
    assert json.loads(rendered(action.payload, "Late", None))["what"] == "waits for a worker, for 60 s now"


def test_the_form_follows_the_address():
    forms = {
        "https://hooks.slack.com/services/T0/B0/x": "slack",
        "http://127.0.0.1:9/hook": "json",
        "mailtos://me:word@mail.example.org?to=you@example.org": "apprise",
        "ntfy://example.org/topic": "apprise",
    }
    assert {url: receiver(url).form for url in forms} == forms
    assert receiver("https://chat.example.org/hooks/x", "slack").form == "slack"
    assert receiver("https://hooks.slack.com/services/T0/B0/x").host == "hooks.slack.com"


@pytest.mark.parametrize("url", ["", "  ", "none"])
def test_nobody_is_told_without_an_address(url):
    assert Receiver.of({"NTULM_ALERT_URL": url}) is None
    assert Receiver.of({}) is None


@pytest.mark.parametrize(
    ("url", "form", "said"),
    [
        ("hooks.slack.com/secret", "", "NTULM_ALERT_URL: no address"),
        ("https://example.org/secret", "mail", "NTULM_ALERT_FORM=mail: expected slack or json"),
        ("mailto://secret@example.org", "json", "NTULM_ALERT_FORM=json: expected apprise"),
    ],
)
def test_a_wrong_address_is_told_without_showing_it(url, form, said):
    with pytest.raises(ServiceError, match=said) as caught:
        receiver(url, form)
    assert "secret" not in str(caught.value)


class Client:
    """As much of Prefect's client as the registration asks for."""

    def __init__(self):
        self.automations: dict = {}
        self.blocks: dict = {}

    async def read_automations_by_name(self, name):
        return [SimpleNamespace(id=key, name=one.name) for key, one in self.automations.items() if one.name == name]

    async def create_automation(self, automation):
        self.automations[uuid4()] = automation

    async def update_automation(self, key, automation):
        self.automations[key] = automation

    async def delete_automation(self, key):
        del self.automations[key]

    async def read_block_documents(self):
        return [SimpleNamespace(id=key, name=name) for key, name in self.blocks.items()]

    async def delete_block_document(self, key):
        del self.blocks[key]


def test_a_registration_makes_one_of_each_keeps_them_and_takes_them_away(monkeypatch):
    client: Any = Client()
    document = uuid4()

    async def save(block, name, overwrite, client):
        assert overwrite
        client.blocks[document] = name
        return document

    monkeypatch.setattr(alerts.Webhook, "asave", save)

    def register(**settings):
        said = asyncio.run(alerts.register(client, settings))
        return said, sorted(one.name for one in client.automations.values())

    both = [ENDED_BADLY, STUCK]
    assert register() == ("nobody; NTULM_ALERT_URL says who", [])
    assert register(NTULM_ALERT_URL="https://example.org/x") == ("example.org, as json", both)
    first = set(client.automations)
    assert register() == ("as registered before", both)
    again = {"NTULM_ALERT_URL": "https://example.org/x", "NTULM_ALERT_FORM": "slack", "NTULM_ALERT_LATE": "30"}
    assert register(**again) == ("example.org, as slack", both)
    assert set(client.automations) == first
    late = next(one for one in client.automations.values() if one.name == STUCK)
    assert late.trigger.within == timedelta(seconds=30)
    assert late.actions[0].block_document_id == document
    assert register(NTULM_ALERT_URL="none") == ("nobody (NTULM_ALERT_URL=none)", [])
    assert client.blocks == {}


@pytest.mark.parametrize("seconds", ["9", "soon", "nan", "inf", "-60"])
def test_a_patience_that_prefect_does_not_take_is_told(seconds):
    with pytest.raises(ServiceError, match=f"NTULM_ALERT_LATE={seconds}: expected seconds, 10 at least"):
        alerts.patience(seconds)


def test_the_address_is_a_secret_of_the_block():
    for url in ("https://example.org/secret", "mailto://127.0.0.1:9?from=a@example.org&to=secret@example.org"):
        assert "secret" not in repr(receiver(url).block())


def test_a_webhook_gets_what_the_block_sends():
    with webhook() as (url, got):
        block: Any = receiver(url).block()
        answer = asyncio.run(block.call('{"text": "é"}'))
    assert answer.status_code == 200
    assert [(one.path, one.kind, json.loads(one.body)) for one in got] == [
        ("/secret-path", "application/json", {"text": "é"})
    ]


def test_an_address_of_a_mailbox_gets_a_letter():
    with mail_server() as (port, letters):
        block: Any = receiver(
            f"mailto://127.0.0.1:{port}?from=ntulm@example.org&to=you@example.org&format=text"
        ).block()
        (action,) = created("mailto://127.0.0.1")[ENDED_BADLY].actions
        subject = rendered(action.subject, "Crashed", None)
        with block.raise_on_failure():
            asyncio.run(block.anotify(rendered(action.body, "Crashed", "gone"), subject))
    (letter,) = letters
    assert "Subject: ntulm: retrain crashed" in letter
    assert "you@example.org" in letter
