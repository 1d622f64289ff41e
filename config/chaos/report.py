"""The end of a chaos run for a person: the table, and what happened to each message that has reason to complain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from config.chaos.evidence import Entry, Evidence
from config.chaos.judge import Case, Finding, cause, rule_names
from messaging.states import REPORT_WORDS, State

MAX_TIMELINES = 10
MAX_LINES_PER_RULE = 5


def table(evidence: Evidence, findings: Sequence[Finding], *, notes: Mapping[str, int]) -> Table:
    """What the run came to: words of the reports first, then one line for each promise."""
    words = Counter(REPORT_WORDS[State(message.state)].lower() for message in evidence.messages)
    broken = Counter(finding.rule for finding in findings)
    entries = evidence.entries
    made = Table("", "number", "", box=None, padding=(0, 2, 0, 3))
    made.add_row("messages", f"{len(evidence.messages):,}", f"{len(evidence.batches):,} batches")
    for word in ("sent", "failed", "unknown"):
        made.add_row(word, f"{words[word]:,}", _causes(evidence) if word == "unknown" else "")
    made.add_row("requests", f"{len(entries):,}", f"{sum(_harmed(entry) for entry in entries):,} with faults")
    made.add_row("delivered", f"{sum(entry.delivered for entry in entries):,}", "by the ledger")
    made.add_row("repeats dropped", f"{sum(entry.repeated for entry in entries):,}", "by the gateway, by our id")
    for note, number in notes.items():
        made.add_row(note, f"{number:,}", "")
    made.add_row("harms done", f"{len(evidence.incidents):,}", _kinds(evidence))
    for rule in rule_names():
        style = "red" if broken[rule] else "green"
        made.add_row(f"[{style}]{rule}[/]", f"[{style}]{broken[rule]:,}[/]", "")
    made.add_row("stops and refusals", f"{len(evidence.stops):,}", f"{len(evidence.opt_outs):,} rounds of opt-outs")
    made.add_row("counters recounted", f"{sum(len(stream.counters) for stream in evidence.streams):,}", "")
    return made


def _causes(evidence: Evidence) -> str:
    """What left attempts unknown that nobody has settled since."""
    case = Case(evidence)
    unknown = {message.id for message in evidence.messages if message.state == State.UNKNOWN}
    causes = Counter(
        cause(case, attempt) or "nothing"
        for attempt in evidence.attempts
        if attempt.message_id in unknown and attempt.outcome == "unknown"
    )
    return ", ".join(f"{number} by {name}" for name, number in causes.most_common())


def _harmed(entry: Entry) -> bool:
    """Whether more happened to a request than the weather that is always there."""
    return bool(set(entry.faults.split("+")) - {"", "latency:after"})


def _kinds(evidence: Evidence) -> str:
    kinds = Counter(incident.kind for incident in evidence.incidents)
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))


def lines(evidence: Evidence, findings: Sequence[Finding]) -> Iterator[str]:
    """Findings in words, then the timelines of the first messages among them."""
    case = Case(evidence)
    told: Counter[str] = Counter()
    for finding in findings:
        told[finding.rule] += 1
        if told[finding.rule] <= MAX_LINES_PER_RULE:
            yield f"{finding.rule}: {finding.text}"
    for rule, number in told.items():
        if number > MAX_LINES_PER_RULE:
            yield f"{rule}: and {number - MAX_LINES_PER_RULE} more"
    bad = list(dict.fromkeys(finding.message for finding in findings if finding.message is not None))
    for message in bad[:MAX_TIMELINES]:
        yield ""
        yield from timeline(case, message)
    if len(bad) > MAX_TIMELINES:
        yield f"… and {len(bad) - MAX_TIMELINES} more messages"


def timeline(case: Case, message: int) -> Iterator[str]:
    """One message: its row, then attempts, requests and harms in the order in which they happened."""
    evidence = case.evidence
    row = next((row for row in evidence.messages if row.id == message), None)
    if row is None:
        yield f"message {message}: there is no such row"
    else:
        yield (
            f"message {row.id}: {row.state}{f' ({row.error_code})' if row.error_code else ''}, batch {row.batch_id}, "
            f"stream {row.stream_id}, device {row.device_id}, release {row.release_no}, attempts {row.attempts}"
        )
    events = sorted([*_attempts(case, message), *_requests(case, message)])
    if not events:
        return
    zero = events[0][0]
    events += _harms(case, begin=zero - evidence.lease_seconds, end=events[-1][0] + evidence.lease_seconds)
    for at, text in sorted(events):
        yield f"  {at - zero:+9.3f} s  {text}"


def _attempts(case: Case, message: int) -> Iterator[tuple[float, str]]:
    for attempt in case.attempts_of.get(message, ()):
        name = f"attempt {attempt.number} (release {attempt.release_no}, round {attempt.round})"
        yield attempt.started, f"row     {name} claimed"
        if attempt.finished is not None:
            code = f" ({attempt.error_code})" if attempt.error_code else ""
            yield attempt.finished, f"row     {name} {attempt.outcome}{code}"


def _requests(case: Case, message: int) -> Iterator[tuple[float, str]]:
    for entry in case.entries_of.get(message, ()):
        fate = "delivered" if entry.delivered else "repeat dropped" if entry.repeated else "not delivered"
        faults = f", faults {entry.faults}" if entry.faults else ""
        yield entry.begin, f"ledger  request {entry.n} arrives from {entry.device}, attempt {entry.attempt}{faults}"
        if entry.end is not None:
            yield entry.end, f"ledger  request {entry.n} over: {entry.answer}, {fate}"


def _harms(case: Case, *, begin: float, end: float) -> list[tuple[float, str]]:
    found = [incident for incident in case.evidence.incidents if incident.overlaps(begin, end)]
    return [(incident.begin, f"harm    {incident.words()}") for incident in found if incident.kind != "gateway"]
