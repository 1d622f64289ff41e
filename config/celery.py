"""The Celery application, its worker steps and the one beat schedule.

Beat's ticks may be late, doubled or lost: each one is safe to run anywhere at once, takes what is there, and leaves the
rest to the next.
"""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import setup_logging

from messaging.transport.hub import WakeHub

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("flotilla")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["consumer"].add(WakeHub)

app.conf.beat_schedule = {
    # Ten times a second: a gap that ends between two ticks waits for the next, and on average that is half a tick.
    "release": {"task": "messaging.release", "schedule": 0.1},
    "recover": {"task": "messaging.recover", "schedule": 5.0},
    "wake-sleepers": {"task": "messaging.wake_sleepers", "schedule": 30.0},
    "wrap-up": {"task": "messaging.wrap_up", "schedule": 2.0},
    "campaigns": {"task": "campaigns.tick", "schedule": 2.0},
    "expire-keys": {"task": "config.expire_keys", "schedule": 600.0},
    "imports": {"task": "leads.resume_imports", "schedule": 30.0},
    "import-files": {"task": "leads.remove_import_files", "schedule": 3600.0},
}


@setup_logging.connect
def _keep_django_logging(**_: object) -> None:
    """Celery must not replace the logging that settings configured."""
