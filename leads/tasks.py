"""Celery entry points of leads: parse, make one call."""

from __future__ import annotations

import structlog
from celery import shared_task
from django.conf import settings
from django.utils import timezone

from leads import services, uploads

log = structlog.get_logger(__name__)

AT_ONCE = 2
"""Imports that workers run at the same time in the whole fleet: each keeps a thread busy for as long as it takes."""


@shared_task(name="leads.run_import")
def run_import(*, import_id: int) -> None:
    """Take a file in. Harmless when doubled: one call works, the others leave."""
    try:
        services.run_import(import_id=import_id, at_once=AT_ONCE)
    except services.ImportBusy as reason:
        log.info("import.left", import_id=import_id, reason=str(reason))
        return
    resume_imports.delay()  # one may have waited for this one to end


@shared_task(name="leads.resume_imports")
def resume_imports() -> None:
    """Beat, every half minute: go on with imports that were interrupted or never began."""
    for import_id in services.idle_imports(now=timezone.now()):
        run_import.delay(import_id=import_id)


@shared_task(name="leads.remove_import_files")
def remove_import_files() -> None:
    """Beat, every hour: uploaded files that are older than the setting says go."""
    uploads.remove_old(now=timezone.now(), keep_days=settings.FLOTILLA_IMPORT_FILE_DAYS)
