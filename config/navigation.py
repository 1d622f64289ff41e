"""The admin's sidebar: only what the person may open."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from devices.access import Role, role_of

_EVERYBODY = (Role.ADMIN, Role.STAFF, Role.TEAM)
_OWNERS = (Role.ADMIN, Role.STAFF)
_ANY_ROLE = tuple(Role)

_GROUPS: tuple[tuple[str, tuple[tuple[str, str, str, tuple[Role, ...]], ...]], ...] = (
    (
        "",
        (
            ("Home", "dashboard", "admin:index", _ANY_ROLE),
            ("Health", "monitor_heart", "admin:health", _ANY_ROLE),
            ("Queues", "low_priority", "admin:queues", _ANY_ROLE),
            ("Workers", "engineering", "admin:workers", _ANY_ROLE),
        ),
    ),
    (
        "Outreach",
        (
            ("Campaigns", "campaign", "admin:campaigns_campaign_changelist", _OWNERS),
            ("Runs", "play_circle", "admin:campaigns_run_changelist", _OWNERS),
            ("Sequences", "conversion_path", "admin:sequences_sequence_changelist", _OWNERS),
            ("Enrolments", "person_pin_circle", "admin:sequences_enrolment_changelist", _EVERYBODY),
        ),
    ),
    (
        "People",
        (
            ("Leads", "group", "admin:leads_lead_changelist", _EVERYBODY),
            ("Segments", "filter_alt", "admin:leads_segment_changelist", _OWNERS),
            ("Imports", "upload_file", "admin:leads_leadimport_changelist", _OWNERS),
            ("Webhooks", "webhook", "admin:leads_leadsource_changelist", _OWNERS),
            ("Outgoing webhooks", "output", "admin:messaging_subscriber_changelist", _OWNERS),
            ("Consent waivers", "gavel", "admin:leads_consentwaiver_changelist", _OWNERS),
        ),
    ),
    (
        "Messages",
        (
            ("Messages", "chat", "admin:messaging_message_changelist", _EVERYBODY),
            ("Replies", "reply", "admin:messaging_inboundmessage_changelist", _EVERYBODY),
            ("Media", "perm_media", "admin:messaging_mediafile_changelist", _OWNERS),
            ("Batches", "stacks", "admin:messaging_batch_changelist", _OWNERS),
        ),
    ),
    (
        "Fleet",
        (
            ("Devices", "smartphone", "admin:devices_device_changelist", _EVERYBODY),
            ("Pools", "device_hub", "admin:devices_pool_changelist", _OWNERS),
            ("Stop all", "emergency_home", "admin:messaging_halt_changelist", (Role.ADMIN, Role.OPS)),
        ),
    ),
    (
        "Access",
        (
            ("Users", "person", "admin:auth_user_changelist", (Role.ADMIN,)),
            ("Roles", "badge", "admin:auth_group_changelist", (Role.ADMIN,)),
            ("Audit trail", "history", "admin:config_auditentry_changelist", _OWNERS),
            ("API tokens", "key", "admin:config_apitoken_changelist", _ANY_ROLE),
        ),
    ),
)


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Groups of links, as unfold wants them."""
    role = role_of(request.user)
    groups = [
        {
            "title": title,
            "separator": bool(title),
            "items": [
                {"title": label, "icon": icon, "link": reverse(name)}
                for label, icon, name, roles in items
                if role in roles
            ],
        }
        for title, items in _GROUPS
    ]
    return [group for group in groups if group["items"]]
