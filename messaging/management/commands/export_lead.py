"""``manage.py export_lead PHONE``: what is known of a person, for that person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from leads.models import Lead
from leads.phones import PhoneProblem, parse_phone
from messaging import disclosing


class Command(BaseCommand):
    help = "Write everything that is known of a person into a zip archive: fields, consent, changes, messages, replies."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("phone", help="their number, as +60123456789")
        parser.add_argument("--owner", default="", help="whose lead, where several have them")
        parser.add_argument("--into", type=Path, default=Path(), help="folder for the archive (this one)")

    def handle(self, *_args: Any, phone: str, owner: str, into: Path, **_options: Any) -> None:
        try:
            number = parse_phone(phone, region=settings.FLOTILLA_DEFAULT_REGION)
        except PhoneProblem as problem:
            raise CommandError(f"phone: {problem.text}") from None
        found = Lead.objects.filter(phone=number).select_related("owner", "device")
        leads = list(found.filter(owner__username=owner) if owner else found)
        if not leads:
            raise CommandError("Nobody with this number is a lead" + (f" of {owner}." if owner else "."))
        if len(leads) > 1:
            names = ", ".join(sorted(lead.owner.get_username() for lead in leads))
            raise CommandError(f"Several have this lead: say whose with --owner ({names}).")
        done = disclosing.disclose(lead=leads[0], by=None, now=timezone.now())
        path = into / done.filename
        try:
            path.touch(mode=0o600, exist_ok=False)
            path.write_bytes(done.to_zip())
        except FileExistsError:
            raise CommandError(f"{path} exists: move it away, or name another folder with --into.") from None
        except OSError as problem:
            raise CommandError(f"{path} cannot be written: {problem.strerror}.") from None
        self.stdout.write(f"{path}: {len(done.known['messages']):,} messages, {len(done.known['replies']):,} replies.")
