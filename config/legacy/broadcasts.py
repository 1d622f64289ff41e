"""Campaigns: what was said, to whom and when. None of them runs by having come over."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.core.exceptions import ValidationError
from django.db import transaction
from psycopg2 import sql

from campaigns import services
from campaigns.models import Campaign, Schedule
from config.legacy.move import WOULD, Move, first_problem
from config.legacy.people import owner_of
from config.legacy.words import (
    OPEN_CAMPAIGNS,
    OVER_CAMPAIGNS,
    UNSENT,
    Row,
    clock_of,
    delays_of,
    planned_of,
    status_of,
    tags_of,
    text_of,
    wording_of,
)
from messaging.media.models import MediaFile
from messaging.media.problems import MediaRefused
from messaging.media.store import keep_base64, keep_url

CAMPAIGNS: Final = "campaigns"
MESSAGES: Final = "broadcast_messages"
_SOON: Final = timedelta(minutes=1)


def take_campaigns(move: Move) -> None:
    """Those that had not begun there become drafts; the others are cancelled here and can be cloned."""
    columns = (
        "user_id", "title", "niche", "target_status", "message", "image_url", "campaign_date", "time_schedule",
        "scheduled_at", "min_delay_seconds", "max_delay_seconds", "ai", "limit", "status",
    )  # fmt: skip
    move.each(CAMPAIGNS, columns, _take_campaign)


def _take_campaign(move: Move, old_id: str, row: Row) -> None:
    owner_id = owner_of(move, row)
    campaign = _campaign(move, old_id, row, owner_id=owner_id)
    if not move.dry_run and (media := _media(move, old_id, row, campaign)) is not None:
        campaign.media, campaign.content_type = media, media.kind
    try:
        # a dry run fetches no picture, which may be all that is to be said
        if campaign.text or not move.dry_run or not text_of(row, "image_url"):
            campaign.full_clean(exclude=["owner"])
    except ValidationError as error:
        raise first_problem(error) from None
    begun = text_of(row, "status").lower() not in OPEN_CAMPAIGNS
    if not move.dry_run:
        with transaction.atomic():
            campaign.save()
            move.keep(CAMPAIGNS, old_id, campaign)
            if begun:
                services.cancel_campaign(campaign, now=move.now())
    move.taken(CAMPAIGNS, old_id, campaign.pk or WOULD)
    _tell_difference(move, old_id, row, campaign)
    if not begun:
        move.to_do(CAMPAIGNS, old_id, "status", "to_launch", "It had not run there: look at the draft and launch it.")
    elif text_of(row, "status").lower() not in OVER_CAMPAIGNS:
        text = "Its state says nothing that is known: it is cancelled here; clone it if it should run."
        move.to_do(CAMPAIGNS, old_id, "status", "unknown_state", text)


def _campaign(move: Move, old_id: str, row: Row, *, owner_id: int) -> Campaign:
    text, changed = wording_of(text_of(row, "message"))
    low, high = delays_of(row, least=10, most=30)
    clock_of(row)
    planned = planned_of(row, zone=move.zone)
    campaign = Campaign(
        owner_id=owner_id or move.by.pk,
        name=" ".join(text_of(row, "title").split())[:150] or f"Campaign {old_id}"[:150],
        text=text,
        status=status_of(row),
        niches=list(tags_of(row, "niche")),
        delay_min_seconds=low,
        delay_max_seconds=high,
        time_zone=move.zone.key,
    )
    if planned is not None and planned > move.now() + _SOON:
        campaign.schedule, campaign.scheduled_at = Schedule.AT, planned
    if changed:
        move.changed(CAMPAIGNS, old_id, "message", "places", "Places like {name} are written as {{ name }} here.")
    if text_of(row, "ai") or text_of(row, "limit") not in {"", "0"}:
        text = "It went turn by turn over devices with a limit: choose a pool and a limit on its page."
        move.to_do(CAMPAIGNS, old_id, "ai", "pooled", text)
    return campaign


def _media(move: Move, old_id: str, row: Row, campaign: Campaign) -> MediaFile | None:
    """Its picture, fetched or unpacked and stored here; a campaign comes without one that cannot be had."""
    address = text_of(row, "image_url")
    if not address:
        return None
    try:
        if address.startswith("data:"):
            return keep_base64(owner=campaign.owner, text=address, name=f"campaign-{old_id}", kind="image")
        return keep_url(owner=campaign.owner, url=address, kind="image")
    except MediaRefused as problem:
        text = f"It came without its picture. {problem} Upload one on its page before you launch it."
        move.changed(CAMPAIGNS, old_id, "image_url", problem.code, text)
        return None


_DROPPED = """
SELECT count(*) AS number FROM {leads} WHERE {owner} AND niche LIKE %s
  AND NOT regexp_split_to_array(btrim(niche), '\\s*,\\s*') && %s::text[]
"""


def _tell_difference(move: Move, old_id: str, row: Row, campaign: Campaign) -> None:
    """How many leads were reached there because the niche is part of another word; here tags are exact."""
    if not campaign.niches or not move.source.has("leads", "niche", "user_id"):
        return
    part = text_of(row, "niche").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    whose = sql.SQL("user_id::text = {}").format(sql.Literal(text_of(row, "user_id")))
    statement = sql.SQL(_DROPPED).format(leads=move.source.table("leads"), owner=whose)
    number = next(iter(move.source.ask(statement, [f"%{part}%", campaign.niches])))["number"]
    if number:
        text = (
            f"There its niche was looked for as a part of words: {number:,} leads that have it only so are not"
            " reached here, where tags are exact. Add their tags to the campaign if they should be."
        )
        move.changed(CAMPAIGNS, old_id, "niche", "exact_tags", text)


def list_unsent(move: Move) -> None:
    """Messages that had not left there, one line each: nothing of them is sent here by itself."""
    if not move.source.has(MESSAGES, "id", "status"):
        return
    names = [name for name in ("campaign_id", "sequence_id", "device_id") if move.source.has(MESSAGES, name)]
    statement = sql.SQL("SELECT {} FROM {} WHERE status IN %s ORDER BY id").format(
        sql.SQL(", ").join(map(sql.Identifier, ("id", "status", *names))), move.source.table(MESSAGES)
    )
    for row in move.source.ask(statement, [UNSENT], name="flotilla_unsent"):
        where = ", ".join(f"{name.removesuffix('_id')} {row[name]}" for name in names if row[name])
        text = f"It was {row['status']} there ({where or 'of nothing'}) and is not sent here: decide whether it should."
        move.to_do(MESSAGES, str(row["id"]), "status", "unsent", text)
