"""The Celery application, its worker steps and the one beat schedule.

Beat's ticks may be late, doubled or lost: each one is safe to run anywhere at once, takes what is there, and leaves the
rest to the next. Several beats may run: one ticks, the others stand by (:mod:`messaging.beats`).
"""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import beat_init, setup_logging
from kombu.exceptions import OperationalError

import config.correlation  # noqa: F401 - its signals carry the request's id along with each task
from messaging.abstaining import AbstainWithoutDatabase
from messaging.housing import HouseSessions
from messaging.starting import RecoverOnStart
from messaging.task_events import CalmEvents, LookButNotTouch, silence
from messaging.transport.hub import WakeHub
from messaging.workers import ReportWorker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("flotilla", events=CalmEvents)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add(LookButNotTouch)
app.steps["consumer"].add(WakeHub)
app.steps["consumer"].add(AbstainWithoutDatabase)
app.steps["consumer"].add(RecoverOnStart)
app.steps["consumer"].add(HouseSessions)
app.steps["consumer"].add(ReportWorker)

TICKS = {
    # Ten times a second: a gap that ends between two ticks waits for the next, and on average that is half a tick.
    "release": {"task": "messaging.release", "schedule": 0.1},
    "pulse": {"task": "messaging.pulse", "schedule": 5.0},
    "recover": {"task": "messaging.recover", "schedule": 5.0},
    "wake-sleepers": {"task": "messaging.wake_sleepers", "schedule": 30.0},
    "fail-over": {"task": "messaging.fail_over", "schedule": 10.0},
    "square-counters": {"task": "messaging.square_counters", "schedule": 60.0},
    "archive-failed": {"task": "messaging.archive_failed", "schedule": 3600.0},
    "let-go": {"task": "messaging.let_go", "schedule": 60.0},
    "wrap-up": {"task": "messaging.wrap_up", "schedule": 2.0},
    "count-days": {"task": "messaging.count_days", "schedule": 5.0},
    "match-receipts": {"task": "messaging.match_receipts", "schedule": 2.0},
    "free-held": {"task": "messaging.free_held", "schedule": 30.0},
    "refreshes": {"task": "messaging.pass_on_refreshes", "schedule": 2.0},
    "tell-subscribers": {"task": "messaging.tell_subscribers", "schedule": 2.0},
    "sweep-deliveries": {"task": "messaging.sweep_deliveries", "schedule": 3600.0},
    "settle": {"task": "messaging.settle", "schedule": 5.0},
    "campaigns": {"task": "campaigns.tick", "schedule": 2.0},
    "sequences": {"task": "sequences.tick", "schedule": 2.0},
    "failure-digest": {"task": "config.failure_digest", "schedule": 60.0},
    "expire-keys": {"task": "config.expire_keys", "schedule": 600.0},
    "imports": {"task": "leads.resume_imports", "schedule": 30.0},
    "import-files": {"task": "leads.remove_import_files", "schedule": 3600.0},
}
app.conf.beat_schedule = TICKS
app.conf.beat_scheduler = "messaging.beats:StandbyScheduler"
silence(str(tick["task"]) for tick in TICKS.values())


@setup_logging.connect
def _keep_django_logging(**_: object) -> None:
    """Celery must not replace the logging that settings configured."""


@beat_init.connect
def _recover_when_beat_starts(**_: object) -> None:
    """Beat may have been away for long: what it missed is looked after before its first tick is due."""
    try:
        for name in ("recover", "wake-sleepers"):
            app.send_task(app.conf.beat_schedule[name]["task"], ignore_result=True, retry=False)
    except (OperationalError, ConnectionError, TimeoutError):
        return  # no broker yet: the ticks come once there is one
