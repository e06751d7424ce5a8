"""Somebody is told: a Prefect block that holds an address, and two automations that write to it.

NTULM_ALERT_URL is the address: an http(s) URL gets a JSON message, any other URL is one of Apprise's, as for e-mail
`mailtos://USER:PASSWORD@mail.example.org?to=you@example.org`. NTULM_ALERT_FORM says what an http(s) URL gets: `slack`
(`{"text": …}`, also understood by Mattermost, Rocket.Chat and Google Chat; the default for hooks.slack.com), or `json`
(MESSAGE below; the default elsewhere). NTULM_ALERT_LATE is for how many seconds a run may wait for a worker. Without
NTULM_ALERT_URL what was registered earlier stays; NTULM_ALERT_URL=none takes it away.

Told are, of runs of our deployments: those that failed, crashed, were refused or found drift (any state of the types
FAILED and CRASHED, whatever its name), and those that no worker takes. Stages of a build are left out of the first: the
build itself fails with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import PrefectClient
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.types import SecretDict
from pydantic import SecretStr

from deploy.services import ServiceError
from flows.states import DRIFTED, NAMES, REFUSED

URL, FORM, LATE = "NTULM_ALERT_URL", "NTULM_ALERT_FORM", "NTULM_ALERT_LATE"
NOBODY = "none"
TEN_MINUTES = "600"  # as long as a build waits for a worker (NTULM_WORKER_PATIENCE)
SHORTEST = timedelta(seconds=10)  # of what Prefect lets an automation wait for
BLOCK = "ntulm-alerts"
ENDED_BADLY, STUCK = "somebody is told of runs that end badly", "somebody is told of runs that no worker takes"
SLACK, JSON, APPRISE = "slack", "json", "apprise"
SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
OURS: dict[str, str | list[str]] = {"prefect.resource.role": ["tag"], "prefect.resource.id": ["prefect.tag.ntulm"]}
NO_STAGE: dict[str, str | list[str]] = {"prefect.resource.role": ["flow"], "prefect.resource.name": ["!stage"]}
RUNS = ["prefect.flow-run.*"]
TAKEN = ("Pending", "Running", "Completed", "Failed", "Crashed", "Cancelling", "Cancelled", "TimedOut", *NAMES)
WORDS = {
    "Failed": "failed",
    "Crashed": "crashed",
    "TimedOut": "took too long",
    REFUSED: "did not take the new posts",
    DRIFTED: "found that the posts have drifted",
}

# Templates of Prefect (Jinja). State messages quote names of files and values of data: they are escaped for what reads
# them, as JSON here and as Slack's markup below.
LONGEST = 2000  # characters of a state's message
HEAD = (
    "{% set state = event.resource['prefect.state-name'] %}"
    "{% set words = WORDS %}"
    "{% set what = words[state] or state %}"
    "{% set message = (event.resource['prefect.state-message'] or '')[:LONGEST] %}"
    "{% set address = (flow_run | ui_url) or '' %}"
    "{% set deployed = deployment.name or '' %}"
).replace("LONGEST", str(LONGEST))
TEXT = "{{ flow.name }} {{ what }} (run {{ flow_run.name }}, deployment {{ deployed }}). {{ message }} {{ address }}"
PLAIN_TEXT = HEAD + TEXT
SUBJECT = HEAD + "ntulm: {{ flow.name }} {{ what }}"
SLACK_TEXT = (
    HEAD + "{% set text %}" + TEXT + "{% endset %}"
    """{"text": {{ text | replace("&", "&amp;") | replace("<", "&lt;") | replace(">", "&gt;") | tojson }}}"""
)
MESSAGE = (
    HEAD + '{"from": "ntulm", "what": {{ what | tojson }}, "flow": {{ flow.name | tojson }}, '
    '"deployment": {{ deployed | tojson }}, "run": {{ flow_run.name | tojson }}, "state": {{ state | tojson }}, '
    '"message": {{ message | tojson }}, "at": {{ event.occurred.isoformat() | tojson }}, '
    '"address": {{ address | tojson }}}'
)


@dataclass(frozen=True)
class Receiver:
    """Who is told: an address, which is a secret, and in which form."""

    url: SecretStr
    form: str  # slack, json or apprise

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Receiver | None":
        """From the environment; None where it names nobody.

        Raises:
            ServiceError: the address is none, or the form does not fit it. The message does not show the address.
        """
        url, form = environment.get(URL, "").strip(), environment.get(FORM, "").strip()
        if url in ("", NOBODY):
            return None
        parts = urlsplit(url)
        if not parts.scheme or not parts.netloc:
            raise ServiceError(f"{URL}: no address; expected https://…, mailtos://… or another of Apprise's forms")
        own = [SLACK, JSON] if parts.scheme in ("http", "https") else [APPRISE]
        if form and form not in own:
            raise ServiceError(f"{FORM}={form}: expected {' or '.join(own)} for an address like {parts.scheme}://…")
        return cls(SecretStr(url), form or own[0 if parts.hostname in SLACK_HOSTS else -1])

    @property
    def host(self) -> str:
        """What may be shown of the address."""
        return urlsplit(self.url.get_secret_value()).hostname or ""

    def block(self) -> Block:
        """The Prefect block that holds the address. Prefect's Slack block hands any address that is not Slack's on to
        Apprise; there is no block for Apprise's other addresses."""
        if self.form == APPRISE:
            return SlackWebhook(url=self.url)
        return Webhook(url=self.url, headers=SecretDict({"Content-Type": "application/json"}))

    def action(self, block: UUID, words: Mapping[str, str]) -> ActionTypes:
        """What an automation does: it writes to the block, with these words for the names of states."""
        if self.form == APPRISE:
            return SendNotification(
                block_document_id=block, subject=_with(words, SUBJECT), body=_with(words, PLAIN_TEXT)
            )
        template = SLACK_TEXT if self.form == SLACK else MESSAGE
        return CallWebhook(block_document_id=block, payload=_with(words, template))


def _with(words: Mapping[str, str], template: str) -> str:
    return template.replace("WORDS", repr(dict(words)), 1)


def automations(receiver: Receiver, block: UUID, late: timedelta) -> list[AutomationCore]:
    """The two automations that write to a block."""
    waits = f"waits for a worker, for {late.total_seconds():.0f} s now"
    each = {"prefect.resource.id"}
    return [
        AutomationCore(
            name=ENDED_BADLY,
            description="A run failed, crashed, was refused or found drift.",
            trigger=EventTrigger(
                posture=Posture.Reactive,
                expect={"prefect.flow-run.*"},
                match=ResourceSpecification({"prefect.resource.id": RUNS, "prefect.state-type": ["FAILED", "CRASHED"]}),
                match_related=[ResourceSpecification(OURS), ResourceSpecification(NO_STAGE)],
                for_each=each,
                threshold=1,
            ),
            actions=[receiver.action(block, WORDS)],
        ),
        AutomationCore(
            name=STUCK,
            description="A run is late, and no worker has taken it since.",
            trigger=EventTrigger(
                posture=Posture.Proactive,
                after={"prefect.flow-run.Late"},
                expect={f"prefect.flow-run.{name}" for name in TAKEN},
                match=ResourceSpecification({"prefect.resource.id": RUNS}),
                match_related=[ResourceSpecification(OURS)],
                for_each=each,
                threshold=1,
                within=late,
            ),
            actions=[receiver.action(block, {"Late": waits})],
        ),
    ]


async def register(client: PrefectClient, environment: Mapping[str, str]) -> str:
    """Create, update or take away block and automations; say in words who is told.

    Raises:
        ServiceError: the address in the environment is none, or the number of seconds.
    """
    receiver = Receiver.of(environment)
    if receiver is None:
        if environment.get(URL, "").strip() == NOBODY:
            await _take_away(client)
            return f"nobody ({URL}={NOBODY})"
        there = [name for name in (ENDED_BADLY, STUCK) if await named(client, name)]
        return "as registered before" if there else f"nobody; {URL} says who"
    late = patience(environment.get(LATE, TEN_MINUTES))
    document = await receiver.block().asave(BLOCK, overwrite=True, client=client)
    for automation in automations(receiver, document, late):
        await ensure(client, automation)
    return f"{receiver.host}, as {receiver.form}"


def patience(seconds: str) -> timedelta:
    """How long a run may wait for a worker.

    Raises:
        ServiceError: no number, or less than Prefect takes.
    """
    try:
        found = timedelta(seconds=float(seconds))
    except (ValueError, OverflowError):
        found = timedelta(0)
    if found < SHORTEST:
        raise ServiceError(f"{LATE}={seconds}: expected seconds, {SHORTEST.total_seconds():.0f} at least")
    return found


async def ensure(client: PrefectClient, automation: AutomationCore) -> None:
    """Create the automation, or update the one of its name."""
    known = await named(client, automation.name)
    if known:
        await client.update_automation(known[0], automation)
    else:
        await client.create_automation(automation)


async def named(client: PrefectClient, name: str) -> list[UUID]:
    """The ids of the automations of a name."""
    return [item.id for item in await client.read_automations_by_name(name) if item.name == name]


async def _take_away(client: PrefectClient) -> None:
    for name in (ENDED_BADLY, STUCK):
        for identity in await named(client, name):
            await client.delete_automation(identity)
    for document in await client.read_block_documents():
        if document.name == BLOCK:
            await client.delete_block_document(document.id)
