"""Editing steps while leads walk through them: what would change for whom, and then the change.

The steps on the sequence's page are a draft. Applying it makes a new version; the versions before it stay, so that a
report can say which text was sent. Leads keep their place: what was put in behind it they get, what was taken out they
do not, and what waits to be sent goes out with the new text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q

from devices.models import Device
from leads.models import Lead
from messaging import adding
from messaging.content.check import check_content
from messaging.content.shape import parse
from messaging.models import Batch
from messaging.states import UNSENT
from sequences import routes, walking
from sequences.models import LIVE, Enrolment, Sequence, Step, StepBatch, StepVersion, Version
from sequences.moves import WITHDRAWALS
from sequences.route import Route, Stop, place_in

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to mend before the steps can be applied."""

    field: str
    code: str
    text: str


class NotReady(Exception):  # noqa: N818 - reads as a fact
    """Steps that cannot be applied, with every reason."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.text for problem in problems))
        self.problems = problems


class DraftChanged(Exception):  # noqa: N818 - reads as a fact
    """The draft is not the one that was looked at any more."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one step. ``kind``: added, removed, text, timing or moved; the numbers are leads.

    ``ahead``: those who have it ahead of them or would; ``waiting``: those whose message of it is not sent yet.
    """

    kind: str
    position: int
    text: str
    ahead: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What applying the draft would do. ``digest`` stands for this draft: apply with it what was looked at."""

    digest: str
    changes: tuple[Change, ...]
    live: int
    problems: tuple[Problem, ...]


def problems_of(sequence: Sequence) -> list[Problem]:
    """Everything that stands in the way of applying the draft."""
    try:
        sequence.clean()
        found = []
    except ValidationError as error:
        found = [Problem(name, "invalid", text) for name, texts in error.message_dict.items() for text in texts]
    steps = list(sequence.steps.order_by("position"))
    if not steps:
        found.append(Problem("steps", "required", "A sequence needs at least one step."))
    last = max((step.position for step in steps), default=0)
    for step in steps:
        try:
            step.full_clean(exclude=["sequence"], validate_unique=False, validate_constraints=False)
        except ValidationError as error:
            found += [
                Problem(f"steps.{step.position}.{name}", "invalid", f"Step {step.position}: {text}")
                for name, texts in error.message_dict.items()
                for text in texts
            ]
        for name in ("reply_goes_to", "silence_goes_to"):
            target = getattr(step, name)
            if target is not None and target > last:
                text = f"Step {step.position}: there is no step {target} to go to."
                found.append(Problem(f"steps.{step.position}.{name}", "does_not_exist", text))
    return found or _cannot_carry(sequence, steps)


def _cannot_carry(sequence: Sequence, steps: Iterable[Step]) -> list[Problem]:
    """What the gateways of the devices that leads hang on cannot carry of these steps.

    A gateway's window for free text is not asked about: whether it is open depends on what the lead will have written.
    """
    devices = Device.objects.filter(Exists(Lead.objects.filter(device=OuterRef("pk"))), owner=sequence.owner_id)
    gateways = set(devices.order_by().values_list("gateway", flat=True).distinct())
    return [
        Problem(
            f"steps.{step.position}.{'content_type' if each.field == 'type' else each.field}",
            each.code,
            f"Step {step.position}: {each.text}",
        )
        for step in steps
        for each in check_content(parse(step.content()), owner_id=sequence.owner_id, gateways=gateways, bulk=False)
    ]


class StepsRefused(Exception):  # noqa: N818 - reads as a fact
    """Steps that cannot be the draft."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text, self.field = code, text, "steps"


def replace_steps(*, sequence: Sequence, steps: Iterable[Mapping[str, Any]]) -> None:
    """Make these the draft. One with the ``pk`` of a step is that step; steps that are not named go.

    In the caller's transaction, which holds back what nobody should see half of. Raises StepsRefused.
    """
    wanted = list(steps)
    there = {step.pk: step for step in Step.objects.select_for_update().filter(sequence=sequence)}
    named = [step["pk"] for step in wanted if "pk" in step]
    for key in named:
        if key not in there:
            text = f"There is no step {key} in this sequence: leave the key out to add one."
            raise StepsRefused("does_not_exist", text)
    if len({step["position"] for step in wanted}) < len(wanted) or len(set(named)) < len(named):
        raise StepsRefused("unique", "Two steps have the same position or key: give each its own.")
    Step.objects.filter(sequence=sequence).exclude(pk__in=named).delete()
    for step in wanted:
        values = {name: value for name, value in step.items() if name != "pk"}
        if "pk" in step:
            Step.objects.filter(pk=step["pk"]).update(**values)
        else:
            Step.objects.create(sequence=sequence, **values)


def require_ready(sequence: Sequence) -> None:
    """Raises NotReady."""
    if problems := problems_of(sequence):
        raise NotReady(problems)


def preview(sequence: Sequence) -> Preview:
    """What :func:`apply` would change, and for how many. Changes nothing."""
    old, new = routes.in_force(sequence), routes.drafted(sequence)
    live = Enrolment.objects.filter(sequence=sequence, state__in=LIVE)
    groups = list(
        live.order_by()
        .values_list("last_key", "next_key")
        .annotate(n=Count("pk"), waiting=Count("pk", filter=Q(message__state__in=sorted(UNSENT))))
    )
    ahead: dict[int, int] = {}
    waiting: dict[int, int] = {}
    for last_key, next_key, number, unsent in groups:
        waiting[next_key] = waiting.get(next_key, 0) + unsent
        at = next_key if new.stop(next_key) else place_in(new, old=old, last_key=last_key, next_key=next_key)
        if number > unsent:
            at = place_in(new, old=old, last_key=last_key, next_key=next_key)
        for stop in (*_ahead(new, at), *(stop for stop in _ahead(old, next_key) if new.stop(stop.key) is None)):
            ahead[stop.key] = ahead.get(stop.key, 0) + number
    changes = [
        Change(kind, stop.position, stop.words, ahead.get(stop.key, 0), waiting.get(stop.key, 0))
        for kind, stop in differences(old, new)
    ]
    return Preview(digest_of(new), tuple(changes), sum(row[2] for row in groups), tuple(problems_of(sequence)))


def differences(old: Route, new: Route) -> list[tuple[str, Stop]]:
    """``(kind, step)`` of what differs, in the order of the steps, removed ones last."""
    found: list[tuple[str, Stop]] = []
    for stop in new.stops:
        before = old.stop(stop.key)
        if before is None:
            found.append(("added", stop))
            continue
        if before.content != stop.content:
            found.append(("text", stop))
        if _timing(before) != _timing(stop):
            found.append(("timing", stop))
        if before.position != stop.position:
            found.append(("moved", stop))
    return [*found, *(("removed", stop) for stop in old.stops if new.stop(stop.key) is None)]


def apply(*, sequence: Sequence, digest: str, by: User | None, now: datetime) -> Version | None:
    """Make the draft the version in force, in one transaction. None if it is already.

    ``digest`` is that of the preview. Raises DraftChanged if the draft is another by now, and NotReady.
    """
    with transaction.atomic():
        # Rounds of the tick share-lock the sequence: none works by the old steps beside this.
        locked = Sequence.objects.select_for_update(no_key=True).get(pk=sequence.pk)
        list(Step.objects.select_for_update().filter(sequence=locked).values_list("pk"))
        old, new = routes.in_force(locked), routes.drafted(locked)
        if digest_of(new) != digest:
            raise DraftChanged
        require_ready(locked)
        if not differences(old, new):
            return None
        version = make_version(locked, by=by, now=now)
        new = routes.in_force(locked)
        _take_out(locked, old, new, now=now)
        _move_places(locked, old, new, now=now)
        _give_new_text(locked, old, new, now=now)
    sequence.refresh_from_db()
    log.info("sequence.edited", sequence_id=sequence.pk, version=version.number, by=by.pk if by else None)
    return version


def make_version(sequence: Sequence, *, by: User | None, now: datetime) -> Version:
    """The draft as a version, in force from now on. The caller holds the sequence."""
    before = {step.key: step for step in StepVersion.objects.filter(version=sequence.version_id)}
    highest = dict(
        StepVersion.objects.filter(version__sequence=sequence).order_by("revision").values_list("key", "revision")
    )
    number = sequence.versions.count() + 1
    version = Version.objects.create(sequence=sequence, number=number, made_at=now, made_by=by)
    names = [field.name for field in StepVersion._meta.get_fields() if field.name in _SHARED]  # noqa: SLF001
    rows = []
    for step in sequence.steps.order_by("position"):
        same = before.get(step.pk)
        kept = same is not None and same.content == step.content()
        revision = same.revision if same is not None and kept else highest.get(step.pk, 0) + 1
        shared = {name: getattr(step, name) for name in names}
        rows.append(StepVersion(version=version, key=step.pk, revision=revision, content=step.content(), **shared))
    StepVersion.objects.bulk_create(rows)
    Sequence.objects.filter(pk=sequence.pk).update(version=version)
    sequence.version = version
    return version


_SHARED = frozenset(
    {
        "position",
        "delay_minutes",
        "window_start",
        "window_end",
        "weekdays",
        "on_reply",
        "reply_goes_to",
        "wait_minutes",
        "silence_goes_to",
        "ends",
    }
)


def digest_of(route: Route) -> str:
    """Stands for a draft: the same steps have the same."""
    plain = [{**asdict(replace(stop, revision=0)), "hours": _hours(stop)} for stop in route.stops]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _hours(stop: Stop) -> list[str]:
    return [str(stop.hours.start), str(stop.hours.end), *map(str, sorted(stop.hours.weekdays))]


def _ahead(route: Route, key: int | None) -> tuple[Stop, ...]:
    stop = route.stop(key)
    return route.ahead_of(stop) if stop is not None else ()


def _timing(stop: Stop) -> Mapping[str, Any]:
    rest = asdict(stop)
    for name in ("content", "revision", "position"):
        del rest[name]
    return rest


def _take_out(sequence: Sequence, old: Route, new: Route, *, now: datetime) -> None:
    """Messages of steps that are gone are taken back; one that is being sent counts as the last step they had."""
    gone = [stop.key for stop in old.stops if new.stop(stop.key) is None]
    rows = Enrolment.objects.filter(sequence=sequence, next_key__in=gone, message__isnull=False)
    messages = {message: pk for pk, message in rows.values_list("pk", "message_id") if message is not None}
    back = adding.withdraw(message_ids=list(messages), code="edited", text=WITHDRAWALS["edited"])
    left = [pk for message, pk in messages.items() if message not in back]
    Enrolment.objects.filter(pk__in=messages.values()).update(message=None, handed_at=None)
    for key in gone:
        Enrolment.objects.filter(pk__in=left, next_key=key).update(last_key=key, base_at=now)
    batches = StepBatch.objects.filter(sequence=sequence, key__in=gone).values_list("batch_id", flat=True)
    adding.close(batches=batches, now=now)


def _move_places(sequence: Sequence, old: Route, new: Route, *, now: datetime) -> None:
    """Give everybody without a message on its way the step ahead by the new steps, and let the tick time it anew.

    One UPDATE for each pair of last and next step, however many leads stand there.
    """
    live = Enrolment.objects.filter(sequence=sequence, state__in=LIVE, handed_at__isnull=True)
    for last_key, next_key in list(live.order_by().values_list("last_key", "next_key").distinct()):
        at = place_in(new, old=old, last_key=last_key, next_key=next_key)
        here = live.filter(last_key=last_key, next_key=next_key)
        before, after = old.stop(next_key), new.stop(at)
        if at != next_key or before is None or after is None or _timing(before) != _timing(after):
            here.filter(look_at__isnull=False).update(next_key=at, due_at=None, look_at=now)
            live.filter(last_key=last_key, next_key=next_key, look_at__isnull=True).update(next_key=at, due_at=None)


def _give_new_text(sequence: Sequence, old: Route, new: Route, *, now: datetime) -> None:
    """What waits with an old text goes out with the new one. What was tried already keeps its own."""
    for stop in new.stops:
        before = old.stop(stop.key)
        if before is None or before.revision == stop.revision:
            continue
        rows = StepBatch.objects.filter(sequence=sequence, key=stop.key, revision=before.revision)
        for row in rows.select_related("batch").order_by("turn"):
            target: Batch = walking.batch_of(sequence_id=sequence.pk, stop=stop, turn=row.turn, now=now)
            moved = adding.move_pending(source=row.batch, target=target, now=now)
            log.info("sequence.text_renewed", sequence_id=sequence.pk, step=stop.position, messages=moved)
        adding.close(batches=[row.batch_id for row in rows], now=now)
