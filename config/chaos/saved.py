"""The end of a chaos run for machines: one JSON file per seed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from config.chaos import report
from config.chaos.judge import rule_names
from config.chaos.plan import Plan
from config.chaos.run import Outcome

MAX_FINDINGS: Final = 500
PATTERN: Final = "verdict-*.json"


def path_of(root: Path, *, seed: int) -> Path:
    """Where the verdict of a seed is kept."""
    return root / PATTERN.replace("*", str(seed))


def save(root: Path, *, plan: Plan, outcome: Outcome) -> Path:
    """Write the verdict: what was done, what came of it, each rule with its findings, and the bad messages' stories."""
    evidence, findings = outcome.evidence, outcome.findings
    broken = Counter(finding.rule for finding in findings)
    told: dict[str, Any] = {
        "seed": plan.seed,
        "seconds": plan.seconds,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "holds": not findings,
        "rules": {rule: broken[rule] for rule in rule_names()},
        "messages": dict(Counter(message.state for message in evidence.messages)),
        "batches": len(evidence.batches),
        "devices": len(evidence.devices),
        "attempts": len(evidence.attempts),
        "requests": len(evidence.entries),
        "delivered": sum(entry.delivered for entry in evidence.entries),
        "repeats_dropped": sum(entry.repeated for entry in evidence.entries),
        "notes": dict(outcome.notes),
        "faults": dict(Counter(f"{incident.kind} {incident.target}" for incident in evidence.incidents)),
        "incidents": [asdict(incident) for incident in evidence.incidents],
        "findings": [asdict(finding) for finding in findings[:MAX_FINDINGS]],
        "story": list(report.lines(evidence, findings)),
    }
    path = path_of(root, seed=plan.seed)
    half = path.with_suffix(".part")
    half.write_text(json.dumps(told, indent=1) + "\n")
    half.replace(path)
    return path


def read(path: Path) -> dict[str, Any] | None:
    """A verdict that was saved, or None when there is none."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
