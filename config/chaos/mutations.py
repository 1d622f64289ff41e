"""Guards that can be taken out, each as a change of text: what the judge would be worth if it missed them.

A patch that no longer fits is an error, never a pass: whoever changes a guard changes its line here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ALONE: Final = "messaging/dispatch/statements/send.py"
TOGETHER: Final = "messaging/dispatch/statements/together.py"
RECOVER: Final = "messaging/dispatch/recover.py"


class DoesNotFit(Exception):  # noqa: N818 - reads as a fact
    """The text that a mutation wants to replace is not there exactly once."""


@dataclass(frozen=True, slots=True)
class Patch:
    """``before`` becomes ``after`` in ``file``, where it stands exactly once."""

    file: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """One guard less.

    ``missed`` says what the promise loses with it, ``under`` which kinds of fault it is there for: the run does no
    others, so that it is short and a busy machine comes to it.
    """

    name: str
    missed: str
    under: Sequence[str]
    patches: Sequence[Patch]


def apply(mutation: Mutation, *, tree: Path) -> None:
    """Take the guard out of the sources below ``tree``. Raises :class:`DoesNotFit`, naming the file."""
    for patch in mutation.patches:
        path = tree / patch.file
        text = path.read_text()
        times = text.count(patch.before)
        if times != 1:
            raise DoesNotFit(f"{mutation.name}: the text to replace stands {times} times in {patch.file}, not once.")
        path.write_text(text.replace(patch.before, patch.after))


MUTATIONS: Final[Sequence[Mutation]] = (
    Mutation(
        "claim-release-no",
        "a late task claims what was released anew to somebody else",
        ["gateway"],
        [
            Patch(
                ALONE,
                "    WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued' "
                "AND m.device_id = d.id",
                "    WHERE m.id = %(message)s AND m.state = 'queued' AND m.device_id = d.id",
            ),
            Patch(
                TOGETHER,
                "ON m.id = a.id AND m.release_no = a.release_no AND m.device_id = able.id",
                "ON m.id = a.id AND m.device_id = able.id",
            ),
        ],
    ),
    Mutation(
        "claim-state",
        "a task that came twice claims what is being sent, or was",
        ["gateway"],
        [
            Patch(
                ALONE,
                "    WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued' "
                "AND m.device_id = d.id",
                "    WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.device_id = d.id",
            ),
            Patch(TOGETHER, "    WHERE m.state = 'queued' AND NOT EXISTS", "    WHERE NOT EXISTS"),
        ],
    ),
    Mutation(
        "claim-batch-state",
        "a paused or cancelled batch goes on",
        ["fleet"],
        [
            Patch(
                ALONE,
                "      AND b.id = m.batch_id AND b.state = 'running' AND b.expires_at > flotilla_now()\n"
                "      AND NOT EXISTS",
                "      AND b.id = m.batch_id AND b.expires_at > flotilla_now()\n      AND NOT EXISTS",
            ),
            Patch(TOGETHER, "AND b.state = 'running' AND b.expires_at", "AND b.expires_at"),
        ],
    ),
    Mutation(
        "claim-halt",
        "STOP ALL does not stop what is under way",
        ["fleet", "freeze"],
        [
            Patch(
                ALONE,
                "AND b.expires_at > flotilla_now()\n      AND NOT EXISTS (SELECT FROM messaging_halt "
                "WHERE ended_at IS NULL)\n    RETURNING",
                "AND b.expires_at > flotilla_now()\n    RETURNING",
            ),
            Patch(
                TOGETHER,
                "    WHERE m.state = 'queued' AND NOT EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL)\n",
                "    WHERE m.state = 'queued'\n",
            ),
        ],
    ),
    Mutation(
        "lead-lock",
        "a claim that waited overtakes an opt-out",
        ["fleet"],
        [Patch(ALONE, "    FOR SHARE OF l\n", ""), Patch(TOGETHER, "    FOR SHARE OF l SKIP LOCKED\n", "")],
    ),
    Mutation(
        "pacing-reservation",
        "a lost record breaks the rhythm",
        ["ambush"],
        [
            Patch(
                ALONE,
                "    SET next_send_at = CASE WHEN %(gap_seconds)s > 0 THEN flotilla_now() + "
                "make_interval(secs => %(gap_seconds)s) END,\n        last_sent_at = flotilla_now()\n    FROM claimed",
                "    SET last_sent_at = flotilla_now()\n    FROM claimed",
            ),
            Patch(
                TOGETHER,
                "    SET next_send_at = CASE WHEN able.gap_seconds > 0\n                            THEN "
                "flotilla_now() + make_interval(secs => able.gap_seconds) END,\n        last_sent_at",
                "    SET last_sent_at",
            ),
        ],
    ),
    Mutation(
        "one-in-flight",
        "two releasers fill one lane",
        ["rogue"],
        [
            Patch(
                "messaging/migrations/0001_initial.py",
                "fields=('device', 'lane'), name='message_one_in_flight'",
                "fields=('device', 'lane', 'id'), name='message_one_in_flight'",
            )
        ],
    ),
    Mutation(
        "record-fence",
        "a worker that slept writes its outcome over a newer send",
        ["gateway"],
        [
            Patch(
                ALONE,
                "    WHERE id = %(message)s AND release_no = %(release_no)s\n"
                "      AND (state IN ('sending', 'unknown')",
                "    WHERE id = %(message)s\n      AND (state IN ('sending', 'unknown')",
            ),
            Patch(TOGETHER, "ON m.id = a.id AND m.release_no = a.release_no\n    WHERE", "ON m.id = a.id\n    WHERE"),
        ],
    ),
    Mutation(
        "lease-recovery",
        "what a dead worker held stays held",
        ["kill", "ambush"],
        [
            Patch(
                RECOVER,
                "    dedups = [kind for kind in registry.kinds()",
                "    if True:\n        return 0\n    dedups = [kind for kind in registry.kinds()",
            )
        ],
    ),
    Mutation(
        "no-blind-resend",
        "an unknown outcome is sent again at a gateway that drops nothing",
        ["kill", "ambush"],
        [
            Patch(
                RECOVER,
                'dedups = [kind for kind in registry.kinds() if registry.driver_for(kind).id_semantics == "dedups"]',
                "dedups = list(registry.kinds())",
            )
        ],
    ),
    Mutation(
        "republish",
        "what the broker forgot is forgotten",
        ["valkey"],
        [
            Patch(
                RECOVER,
                "    done = publish(lost)\n",
                "    done = len(lost[:0])\n",
            )
        ],
    ),
)
