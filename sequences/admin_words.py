"""Sequences in words: colours, the way as a timeline, an edit before it happens, and how far it all is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

from devices.admin_pages import Question, change_url
from messaging.admin_progress import bar
from messaging.admin_report import Part, Subject
from sequences import editing, groups, progress, routes
from sequences.editing import Preview
from sequences.models import EnrolmentState, OnReply, Sequence, SequenceState, StepFields, StepVersion

SEQUENCE_COLOURS = {
    SequenceState.DRAFT: "default",
    SequenceState.ACTIVE: "success",
    SequenceState.PAUSED: "warning",
}
ENROLMENT_COLOURS = {
    EnrolmentState.ACTIVE: "info",
    EnrolmentState.PAUSED: "warning",
    EnrolmentState.COMPLETED: "success",
    EnrolmentState.EXITED: "default",
    EnrolmentState.FAILED: "danger",
}
EXIT_WORDS = {"reply": "wrote back", "opted_out": "opted out", "goal": "reached the goal", "removed": "taken out"}
KIND_WORDS = {
    "added": "New: {ahead} will get it",
    "removed": "Taken out: {ahead} will not get it",
    "text": "Other words: {ahead} will get these, {waiting} of them wait to be sent",
    "timing": "Other time or conditions: for {ahead}",
    "moved": "Another place: for {ahead}",
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def duration(minutes: int) -> str:
    """``2 days 3 hours``."""
    days, rest = divmod(minutes, 24 * 60)
    hours, left = divmod(rest, 60)
    parts = [
        f"{number} {word}{'' if number == 1 else 's'}"
        for number, word in ((days, "day"), (hours, "hour"), (left, "minute"))
        if number
    ]
    return " ".join(parts) or "at once"


def when(step: StepFields, *, first: bool) -> str:
    """When a step goes out, in words."""
    after = "entering" if first else "the step before"
    words = f"{duration(step.delay_minutes)} after {after}" if step.delay_minutes else f"right after {after}"
    if step.window_start and step.window_end:
        words += f", from {step.window_start:%H:%M} to {step.window_end:%H:%M}"
    if step.weekdays:
        words += ", on " + ", ".join(DAYS[day - 1] for day in sorted(step.weekdays))
    return words


def then(step: StepFields) -> str:
    """What a reply and its absence lead to, in words; empty for the usual."""
    words = []
    if step.on_reply == OnReply.GO:
        words.append(f"a reply leads to step {step.reply_goes_to}")
    if step.on_reply == OnReply.IGNORE:
        words.append("a reply changes nothing")
    if step.wait_minutes:
        words.append(f"waits {duration(step.wait_minutes)} for one")
    if step.ends:
        words.append("without one it ends here")
    elif step.silence_goes_to is not None:
        words.append(f"without one it goes on with step {step.silence_goes_to}")
    return "; ".join(words)


def timeline(sequence: Sequence) -> SafeString | str:
    """The steps of the draft as an ordered list."""
    steps = list(sequence.steps.order_by("position"))
    if not steps:
        return "No steps yet: add the first one below."
    shown = [
        {
            "position": step.position,
            "words": routes.draft_stop(step).words,
            "when": when(step, first=number == 0),
            "then": then(step),
        }
        for number, step in enumerate(steps)
    ]
    return SafeString(render_to_string("admin/sequences/way.html", {"steps": shown}))


def saved_check(sequence: Sequence | None) -> dict[str, Any]:
    """What stands in the way of the saved steps, for ``admin/guide_check.html``."""
    before = "Save it: what stands in the way of its steps is named on the next page, before anybody gets one."
    if sequence is None:
        return {"url": "", "before": before}
    named = {"steps": "what", "next_sequence": "out", "goal": "out", "time_zone": "pace"}
    problems = [
        {"text": each.text, "step": named.get(each.field.partition(".")[0], ""), "field": each.field}
        for each in editing.problems_of(sequence)
    ]
    steps = sequence.steps.count()
    facts = (("Steps, as they are saved", f"{steps:,}"), ("State", sequence.get_state_display()))
    return {
        "url": "",
        "before": before,
        "stops": "Before its steps can go out",
        "ready": "Its saved steps can go out",
        "problems": problems,
        "facts": () if problems else facts,
    }


def edit_question(sequence: Sequence, seen: Preview) -> Question:
    """What applying the draft does, step by step."""
    facts = tuple(
        (
            f"Step {change.position}",
            KIND_WORDS[change.kind].format(ahead=f"{change.ahead:,} leads", waiting=f"{change.waiting:,}"),
        )
        for change in seen.changes
    )
    return Question(
        title=f"Apply the steps of “{sequence}”?",
        text=f"{seen.live:,} leads are in it now. Who had a step keeps it; what waits to be sent gets the new words."
        if facts
        else "The steps are those in force: there is nothing to apply.",
        button="Apply" if facts and not seen.problems else "",
        back=change_url(sequence),
        facts=facts,
        warnings=tuple(problem.text for problem in seen.problems),
        hidden=(("digest", seen.digest),),
    )


def subject_of(sequence: Sequence) -> Subject:
    """What the device report is about: the sequence, and each of its steps that has sent anything."""
    by_step = groups.batches_by_step(sequence)
    names = {step.key: step_name(step.position, step.text) for step in progress.by_step(sequence)}
    return Subject(
        key=f"sequence-{sequence.pk}",
        name=str(sequence),
        row=sequence,
        batches=tuple(batch for batches in by_step.values() for batch in batches),
        parts=tuple(
            Part(f"sequence-{sequence.pk}-{key}", name, tuple(by_step[key]))
            for key, name in names.items()
            if key in by_step
        ),
        part_word="Step",
        back=change_url(sequence),
    )


def step_name(position: int, text: str) -> str:
    """A step in a line: “2. Still there?”."""
    return f"{position}. {text}" if position else text


def state_of(sequence: Sequence, *, now: datetime) -> dict[str, Any]:
    """What the moving part of a sequence's page shows."""
    whole = progress.of([sequence], now=now)[sequence.pk]
    enrolments = f"{reverse('admin:sequences_enrolment_changelist')}?sequence__id__exact={sequence.pk}"
    exits = ", ".join(f"{number:,} {EXIT_WORDS.get(code, code)}" for code, number in (whole.exits or {}).items())
    waiting = f"{whole.waiting_for_device:,} for their device" if whole.waiting_for_device else ""
    states = (
        ("Active", "active", whole.active, ""),
        ("Paused", "paused", whole.paused, waiting),
        ("Completed", "completed", whole.completed, ""),
        ("Left", "exited", whole.exited, exits),
        ("Failed", "failed", whole.failed, ""),
    )
    return {
        "sequence": sequence,
        "words": sequence.get_state_display(),
        "colour": SEQUENCE_COLOURS[SequenceState(sequence.state)],
        "whole": whole,
        "ends_at": localtime(whole.ends_at) if whole.ends_at else None,
        "enrolments_url": enrolments,
        "tiles": [(word, number, note, f"{enrolments}&state__exact={value}") for word, value, number, note in states],
        "steps": _steps(sequence),
        "draft_differs": sequence.version_id is not None and differs(sequence),
        "report_url": reverse("admin:sequences_sequence_report", args=[sequence.pk]),
        "devices": progress.by_device(sequence)[:10],
    }


def _steps(sequence: Sequence) -> list[dict[str, Any]]:
    """The steps in force, each with its numbers; before them what was taken out and has messages still."""
    rows = {row.key: row for row in StepVersion.objects.filter(version=sequence.version_id)}
    found: list[dict[str, Any]] = []
    first = True
    for step in progress.by_step(sequence):
        row = rows.get(step.key)
        report = (
            f"{reverse('admin:sequences_sequence_report', args=[sequence.pk])}?part=sequence-{sequence.pk}-{step.key}"
        )
        found.append(
            {
                "position": step.position,
                "words": step.text,
                "when": when(row, first=first) if row is not None else "",
                "then": then(row) if row is not None else "",
                "step": step,
                "bar": bar(step.messages),
                "report_url": report if step.messages.total else "",
            }
        )
        first = first and row is None
    return found


def differs(sequence: Sequence) -> bool:
    """Whether the draft is another than what is in force, if anything is."""
    if sequence.version_id is None:
        return True
    return bool(editing.differences(routes.in_force(sequence), routes.drafted(sequence)))
