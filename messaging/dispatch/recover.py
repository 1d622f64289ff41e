"""Looking after what a crash left behind. Each function is one bounded step and returns what it did."""

from __future__ import annotations

import structlog
from django.conf import settings

from devices.gateways import registry
from messaging.dispatch import statements as sql
from messaging.dispatch.pool import Pool, shared_pool
from messaging.dispatch.prepared import Statement
from messaging.dispatch.publish import Released, publish, queue_depths
from messaging.dispatch.stuck import give_up

log = structlog.get_logger(__name__)

LIMIT = 1000

ONE_AT_A_TIME = Statement("recover_one_at_a_time", "SELECT pg_try_advisory_xact_lock(hashtext('flotilla recovery'))")


def at_start(*, pool: Pool | None = None) -> bool:
    """Everything a tick would do, now; False if another process that is starting is at it.

    Each step is safe to run anywhere at once; the lock only keeps a hundred workers from publishing the same message a
    hundred times.
    """
    pool = pool or shared_pool()
    with pool.transaction() as session:
        if not session.execute(ONE_AT_A_TIME, {})[0][0]:
            return False
        done = {step.__name__: step(pool=pool) for step in (expire_leases, unstick_queued, republish_unclaimed)}
        woken = wake_sleepers(pool=pool)
    log.info("recover.started", **done, wake_sleepers=woken)
    return True


def republish_unclaimed(*, pool: Pool | None = None) -> int:
    """Publish again what was released a while ago and never claimed, where its device's queue is empty.

    After FLUSHALL, or a crash between commit and publish, the broker has forgotten it. The release number stays: if
    the first task still lives somewhere, only one of the two can claim.
    """
    rows = (pool or shared_pool()).execute(
        sql.UNCLAIMED, {"seconds": settings.FLOTILLA_REPUBLISH_SECONDS, "limit": LIMIT}
    )
    waiting = [Released(message_id=m, device_id=d, release_no=r, gateway=g) for m, d, r, g in rows]
    if not waiting:
        return 0
    depths = queue_depths([item.device_id for item in waiting])
    if depths is None:
        return 0  # the broker is down: the next tick asks again
    lost = [item for item, depth in zip(waiting, depths, strict=True) if not depth]
    done = publish(lost)
    if done:
        log.info("recover.republished", messages=done)
    return done


def unstick_queued(*, pool: Pool | None = None) -> int:
    """What has been queued for too long (no worker for its device) is pending again, or fails, by the policy set."""
    pool, policy = pool or shared_pool(), settings.FLOTILLA_STUCK_QUEUED_POLICY
    seconds = settings.FLOTILLA_STUCK_QUEUED_SECONDS
    if policy == "failed":
        number = give_up(seconds=seconds, limit=LIMIT, pool=pool)
    else:
        number = len(pool.execute(sql.UNSTICK, {"seconds": seconds, "limit": LIMIT}))
    if number:
        log.warning("recover.unstuck", messages=number, now=policy)
    return number


def expire_leases(*, pool: Pool | None = None) -> int:
    """Declare the outcome of sends unknown whose worker did not come back in time."""
    dedups = [kind for kind in registry.kinds() if registry.driver_for(kind).id_semantics == "dedups"]
    rows = (pool or shared_pool()).execute(sql.EXPIRE_LEASES, {"dedups": dedups, "limit": LIMIT})
    if rows:
        log.warning("recover.leases_expired", messages=len(rows), resent=sum(1 for _, resend in rows if resend))
    return len(rows)


def wake_sleepers(*, pool: Pool | None = None) -> int:
    """Wake devices that have something waiting but no moment to wake at; returns how many."""
    pool = pool or shared_pool()
    pool.execute(sql.REOPEN_BATCHES, {})
    return len(pool.execute(sql.WAKE_SLEEPERS, {}))
