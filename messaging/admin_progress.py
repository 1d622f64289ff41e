"""How far a batch is, drawn: the same bar in lists, on pages and on the dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from messaging.models import BatchState
from messaging.services import Counts

BATCH_COLOURS = {
    BatchState.RUNNING: "info",
    BatchState.PAUSED: "warning",
    BatchState.FINISHED: "success",
    BatchState.FAILED: "danger",
    BatchState.CANCELLED: "danger",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One of the five words of reports, with its share of the whole in percent."""

    word: str
    number: int
    share: float
    note: str = ""

    @property
    def css(self) -> str:
        """The part's colour class."""
        return f"fl-{self.word.lower()}"


def parts(counts: Counts) -> list[Part]:
    """Pending, Queued, Sent, Failed (each kind named) and Unknown."""
    kinds = {"failed": counts.failed, "cancelled": counts.cancelled, "expired": counts.expired}
    receipts = {"delivered": counts.delivered, "read": counts.read}
    numbers = [
        ("Pending", counts.pending, ""),
        ("Queued", counts.queued, ""),
        ("Sent", counts.sent, _named(receipts)),
        ("Failed", sum(kinds.values()), _named(kinds)),
        ("Unknown", counts.unknown, _unknown(counts)),
    ]
    return [
        Part(word, number, 100 * number / counts.total if counts.total else 0.0, note) for word, number, note in numbers
    ]


def bar(counts: Counts) -> SafeString:
    """The bar with its number: what has been sent, what failed, what nobody knows."""
    if not counts.total:
        return format_html('<span class="fl-muted">{}</span>', "–")
    drawn = [part for part in parts(counts) if part.word in {"Sent", "Failed", "Unknown"} and part.number]
    text = f"{counts.settled:,} of {counts.total:,}"
    return format_html(
        '<div class="fl-progress"><div class="fl-bar" role="img" aria-label="{}">{}</div>'
        '<span class="fl-progress-text">{}</span></div>',
        f"{text} done: " + ", ".join(f"{part.number:,} {part.word.lower()}" for part in drawn),
        format_html_join(
            "", '<span class="{}" style="width:{}%" title="{} {}"></span>', (_drawn(part) for part in drawn)
        ),
        text,
    )


def _drawn(part: Part) -> tuple[str, str, str, str]:
    return part.css, f"{part.share:.2f}", f"{part.number:,}", part.word.lower()


def _unknown(counts: Counts) -> str:
    if not counts.unknown:
        return ""
    presumed = f", {counts.presumed:,} presumed sent" if counts.presumed else ""
    return f"may have reached the phone{presumed}"


def _named(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {word}" for word, number in numbers.items() if number)
