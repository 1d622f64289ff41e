"""Carrying one message to its gateway. Read ``Sender._send_it`` from top to bottom: the whole life of a send."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from random import Random
from time import monotonic
from typing import Any

import psycopg2
import structlog
from django.conf import settings

from devices.clients import ClientRegistry, RefreshFailed
from devices.gateways import registry as gateways
from devices.gateways.base import Outcome, Outgoing, Unknown
from devices.services import CAP_REACHED, OUTSIDE_WINDOW
from messaging import failpoints, tracing
from messaging.content.prepare import Prepared, prepare
from messaging.content.problems import TemplateProblem, ValueMissing
from messaging.dispatch import bans, courtesy, holding
from messaging.dispatch import statements as sql
from messaging.dispatch.breaker import Breaker, met_somebody
from messaging.dispatch.combining import FailedTogether
from messaging.dispatch.convoy import Convoy
from messaging.dispatch.decide import Decision, decide
from messaging.dispatch.fate import own_lease, unclaim
from messaging.dispatch.job import Job, job_of
from messaging.dispatch.pool import Pool, Row, is_away
from messaging.dispatch.publish import publish
from messaging.dispatch.reconnect import call_a_person, refresh_failed
from messaging.dispatch.release import hand_over
from messaging.media.attaching import MediaGone, attachment
from messaging.meters import METERS
from messaging.pacing import gap_seconds
from messaging.states import State

log = structlog.get_logger(__name__)

CARRY_MESSAGES = 100
CARRY_SECONDS = 5.0
"""How long one task stays with its device before it lets the others have the thread."""


LONGEST_WAIT_SECONDS = 30.0
"""For a device whose host cannot connect now: the first device that can brings the others back within this time."""

INCIDENT_STRIKES = 3
"""After so many rests in a row, about a minute of silence, an address is an incident that people are told of."""
OUTRUN = {
    "replied": "The lead wrote back before it went out.",
    "withdrawn": "It was withdrawn while it was at a gateway, which did not take it.",
}
"""Why a message whose lead's replies it was bound to does not go out any more."""


class Result(StrEnum):
    """What a send came to, for the log and for tests."""

    DONE = "done"
    STALE = "stale"
    GIVEN_BACK = "given_back"
    SNOOZED = "snoozed"
    ENDED = "ended"


class Sender:
    """The dependencies of a send, held together so that tests can bring their own dice and registry."""

    def __init__(
        self,
        *,
        pool: Pool,
        clients: ClientRegistry,
        rng: Random,
        convoy: Convoy | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self.pool = pool
        self.convoy = convoy or Convoy(pool=pool)
        self.breaker = breaker or Breaker()
        self.clients = clients
        self.rng = rng
        self.failed: list[int] = []
        """Messages that failed for good in the hands of this sender."""

    def carry(self, *, message_id: int, release_no: int) -> int:
        """Send a message, then its device's next ones for as long as they are due at once. Returns how many.

        Staying with the device saves a tick and a trip through the broker per message; after a bounded time the next
        release goes through the queue, so that other devices get the thread.
        """
        started, carried = monotonic(), 0
        job = self._peek(message_id, release_no)
        while job is not None and (result := self._send(job)) is not Result.STALE:
            carried += 1
            if job.has_gap and result is not Result.SNOOZED:
                break  # the device rests now, and its record has set the alarm
            row = self._hand_over(job)
            if row is None:
                break
            job = job_of(row)
            if carried >= CARRY_MESSAGES or monotonic() - started > CARRY_SECONDS:
                publish([job.released])
                break
        return carried

    def send(self, *, message_id: int, release_no: int) -> Result:
        """Carry exactly one message."""
        job = self._peek(message_id, release_no)
        return Result.STALE if job is None else self._send(job)

    def _send(self, job: Job) -> Result:
        with tracing.on_behalf_of(job.request_id):
            return self._send_it(job)

    def _send_it(self, job: Job) -> Result:
        """Refresh, render, claim, call, record."""
        closed_seconds = job.window.opens_in_seconds(job.now) if job.window else 0.0
        if closed_seconds:
            return self._hold(job, closed_seconds, OUTSIDE_WINDOW)
        if job.gateway_state == "rests":
            return self._give_back(job)
        if self.breaker.refuses(job.address, probing=job.gateway_state == "probing"):
            self._rest(job, strike=0, reason="Too many calls to it hang.")
            return self._give_back(job)
        not_now_seconds = max(courtesy.quiet_for_seconds(job.lead, now=job.now), job.new_contact_seconds)
        if not_now_seconds > 0:
            return self._snooze(job, not_now_seconds)
        try:
            client = self.clients.get(device_id=job.device_id, config_version=job.config_version)
        except RefreshFailed as problem:
            return self._refresh_failed(job, problem)
        try:
            said = self._prepare(job)
            media = attachment(said.media, pool=self.pool) if said.media is not None else None
        except ValueMissing as problem:
            return self._hold_message(job, problem)
        except (TemplateProblem, MediaGone) as problem:
            return self._end_unsent(job, State.FAILED, "content", str(problem))
        gap = gap_seconds(device=job.device_rhythm, batch=job.batch_rhythm, rng=self.rng)

        failpoints.hit("before_claim")
        claimed = self._claim(job, said.text, gap)
        if claimed is None:
            return self._not_claimed(job)
        if isinstance(claimed, courtesy.HadEnough):
            return self._snooze(job, claimed.for_seconds)
        attempt, in_doubt = claimed
        failpoints.hit("after_claim")

        outgoing = Outgoing(
            message_id=job.message_id,
            attempt=attempt,
            reference=job.reference,
            phone=job.phone,
            text=said.text,
            type=said.type,
            media=media,
            template=said.template,
        )
        called_at = monotonic()
        outcome = self._call(client, job, outgoing)
        took_seconds = monotonic() - called_at
        failpoints.hit("after_accept")
        driver = gateways.driver_for(job.gateway)
        log.info(
            "send.platform" if driver.transport == "http" else "send.session", message_id=job.message_id,
            device_id=job.device_id, gateway=job.gateway, attempt=attempt, seconds=round(took_seconds, 3),
        )  # fmt: skip
        decision = decide(
            outcome,
            attempt=attempt,
            in_doubt=in_doubt,
            retry_minutes=settings.FLOTILLA_RETRY_MINUTES,
            id_semantics=driver.id_semantics,
        )
        self._record(job, decision, gap)
        METERS.note_send(decision.state.value, seconds=took_seconds)
        self._note_of_gateway(job, outcome)
        return Result.DONE

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _peek(self, message_id: int, release_no: int) -> Job | None:
        rows = self.pool.execute(sql.PEEK, {"message": message_id, "release_no": release_no})
        return job_of(rows[0]) if rows else None

    def _prepare(self, job: Job) -> Prepared:
        return prepare(
            job.content,
            variables=job.variables,
            seed=job.message_id,
            local_time=lambda: courtesy.local_time(job.lead, now=job.now),
        )

    def _hand_over(self, job: Job) -> Row | None:
        with suppress(FailedTogether):
            found = self.convoy.hand_over(device_id=job.device_id)
            if found is not None:
                return found[0] if found else None
        return hand_over(device_id=job.device_id, pool=self.pool)  # which waits for whoever holds the device

    def _claim(self, job: Job, text: str, gap: float) -> tuple[int, bool] | courtesy.HadEnough | None:
        """The attempt's number and whether an earlier one may have arrived; None if there was nothing to claim."""
        params = {
            **job.key,
            "lease_seconds": own_lease(settings.FLOTILLA_LEASE_SECONDS),
            "gap_seconds": gap,
            "reference": job.reference,
            "text": text,
            "warm_up_cap": job.warm_up_cap,
        }
        try:
            rows = self._claim_rows(job, params)
        except (psycopg2.Error, FailedTogether) as problem:
            if isinstance(problem, psycopg2.Error) and not is_away(problem):
                raise
            # It may stand all the same, and nobody may call a gateway on a claim that they have not seen.
            unclaim(pool=self.pool, key=job.key, lease_seconds=params["lease_seconds"])
            return None
        if isinstance(rows, courtesy.HadEnough):
            return rows
        return (rows[0][0], rows[0][1]) if rows else None

    def _claim_rows(self, job: Job, params: Mapping[str, Any]) -> list[Row] | courtesy.HadEnough:
        statement = sql.CLAIM_PACED if job.paced else sql.CLAIM_FREE
        counts_lead = courtesy.capped(job.lead)
        if not (job.capped_lanes or counts_lead):
            row = self.convoy.claim(params, paced=job.paced)
            return self.pool.execute(statement, params) if row is None else [row]
        # Two lanes, or two devices, must not both see a cap's last place: count only after the lock is held. The
        # device's before the lead's, as everywhere.
        with self.pool.transaction() as session:
            if job.paced:
                session.execute(sql.LOCK_DEVICE, params)
            had_enough = courtesy.had_enough(session, message_id=job.message_id) if counts_lead else None
            return had_enough or session.execute(statement, params)

    def _call(self, client: Any, job: Job, outgoing: Outgoing) -> Outcome:
        try:
            with self.breaker.calling(job.address):
                return client.send(outgoing)
        except Exception as problem:
            log.exception("send.driver_raised", message_id=outgoing.message_id)
            return Unknown("driver_error", f"The gateway driver failed: {type(problem).__name__}.")

    def _record(self, job: Job, decision: Decision, gap: float) -> None:
        if decision.state is State.SENT:
            with suppress(FailedTogether):
                params = {**job.key, "gap_seconds": gap, "external_id": decision.external_id}
                if self.convoy.record_sent(params):
                    return
        # Nobody else knows the outcome. Fenced as it is, the record changes nothing when it runs a second time.
        moved = self.pool.insist(
            sql.RECORD,
            {
                **job.key,
                "state": decision.state.value,
                "outcome": decision.outcome,
                "wait_seconds": decision.wait_seconds,
                "free": decision.free,
                "external_id": decision.external_id,
                "error_code": decision.error_code,
                "error_text": decision.error_text,
                "gap_seconds": gap,
            },
            seconds=settings.FLOTILLA_LEASE_SECONDS,
        )
        if not moved:
            log.warning("send.fenced", message_id=job.message_id, outcome=decision.outcome)
            return
        if decision.hold_device_seconds:
            self.pool.execute(
                sql.HOLD_DEVICE,
                {"device": job.device_id, "seconds": decision.hold_device_seconds, "reason": decision.error_text[:200]},
            )
        if decision.hold_new_contacts_seconds:
            self.pool.execute(
                sql.HOLD_NEW_CONTACTS, {"device": job.device_id, "seconds": decision.hold_new_contacts_seconds}
            )
        if decision.device_needs_attention:
            self.clients.discard(device_id=job.device_id)
            call_a_person(
                device_id=job.device_id, code=decision.error_code, text=decision.error_text, banned=decision.banned,
                pool=self.pool,
            )  # fmt: skip
        if decision.banned:
            bans.pause_batch_of(message_id=job.message_id, pool=self.pool)
        if decision.state is State.FAILED:
            self.failed.append(job.message_id)
        if decision.state is not State.SENT:
            log.info(
                "send.not_accepted", message_id=job.message_id, device_id=job.device_id, outcome=decision.outcome,
                code=decision.error_code, state=decision.state.value,
            )  # fmt: skip

    def _note_of_gateway(self, job: Job, outcome: Outcome) -> None:
        met, probing = met_somebody(outcome), job.gateway_state == "probing"
        if self.breaker.trips(job.address, probing=probing, met=met):
            self._rest(job, strike=1, reason=getattr(outcome, "text", ""))
        elif met and job.gateway_state is not None:
            self.pool.execute(sql.END_REST, {"gateway": job.gateway, "base_url": job.base_url})
            self.pool.execute(sql.INCIDENT_ENDED, {"scope": "gateway", "subject": _subject(job)})
            log.info("gateway.rest_ended", gateway=job.gateway, base_url=job.base_url)

    def _rest(self, job: Job, *, strike: int, reason: str) -> None:
        params = {"gateway": job.gateway, "base_url": job.base_url, "strike": strike, "reason": reason[:300]}
        for strikes, seconds in self.pool.execute(sql.REST_GATEWAY, params):
            log.warning(
                "gateway.rests", gateway=job.gateway, base_url=job.base_url, strikes=strikes, seconds=float(seconds)
            )
            if strikes >= INCIDENT_STRIKES:
                self.pool.execute(
                    sql.INCIDENT_BEGAN, {"scope": "gateway", "subject": _subject(job), "reason": reason, "most": 0}
                )

    # -- what else may happen ------------------------------------------------------------------------------------------

    def _not_claimed(self, job: Job) -> Result:
        """Somebody else was here, or something changed since the release: find out which and put things right."""
        rows = self.pool.execute(sql.WHY_NOT, {**job.key, "warm_up_cap": job.warm_up_cap})
        if not rows:
            return Result.STALE
        _, batch_state, expired, lead_gone, opted_out, capped_for_seconds, in_review, outrun = rows[0]
        if opted_out or lead_gone:
            code, text = (
                ("opted_out", "The lead opted out.") if opted_out else ("lead_deleted", "The lead was deleted.")
            )
            return self._end_unsent(job, State.CANCELLED, code, text)
        if outrun:
            return self._end_unsent(job, State.CANCELLED, outrun, OUTRUN[outrun])
        if batch_state == "cancelled":
            return self._end_unsent(job, State.CANCELLED, "cancelled", "Its batch was cancelled.")
        if batch_state == "failed":
            return self._end_unsent(job, State.FAILED, "run_failed", "Its run failed.")
        if expired:
            return self._end_unsent(job, State.EXPIRED, "expired", "It was not sent before its batch expired.")
        if in_review:
            return self._snooze(job, courtesy.REVIEW_SECONDS)
        wait = float(capped_for_seconds or 0)
        return self._hold(job, wait, CAP_REACHED) if wait > 0 else self._give_back(job)

    def _hold(self, job: Job, seconds: float, reason: str) -> Result:
        """The device rests for a while and the message waits with it."""
        self.pool.execute(sql.HOLD_DEVICE, {"device": job.device_id, "seconds": seconds, "reason": reason[:200]})
        return self._give_back(job)

    def _give_back(self, job: Job, *, wait_seconds: float = 0.0) -> Result:
        self.pool.execute(sql.GIVE_BACK, {**job.key, "wait_seconds": wait_seconds})
        return Result.GIVEN_BACK

    def _snooze(self, job: Job, seconds: float) -> Result:
        """Not now to this lead: the message waits, and its device goes on with the others."""
        self.pool.execute(courtesy.SNOOZE, {**job.key, "wait_seconds": seconds})
        return Result.SNOOZED

    def _hold_message(self, job: Job, problem: ValueMissing) -> Result:
        """The lead lacks a value: the message waits until they have it, and its device goes on with the others."""
        self.pool.execute(
            holding.HOLD, {**job.key, "wait_seconds": holding.AGAIN_SECONDS, "reason": str(problem)[:300]}
        )
        log.info("send.held", message_id=job.message_id, code=holding.MISSING)
        return Result.SNOOZED

    def _end_unsent(self, job: Job, state: State, code: str, text: str) -> Result:
        self.pool.execute(
            sql.END_UNSENT, {**job.key, "state": state.value, "error_code": code, "error_text": text[:300]}
        )
        if state is State.FAILED:
            self.failed.append(job.message_id)
        log.info("send.ended", message_id=job.message_id, state=state.value, code=code)
        return Result.ENDED

    def _refresh_failed(self, job: Job, problem: RefreshFailed) -> Result:
        """The device could not be reached; the message goes back and has lost nothing."""
        wait = refresh_failed(device_id=job.device_id, problem=problem, pool=self.pool)
        # the device waits, not the message alone: the next one of its stream must not overtake it
        return self._hold(job, min(wait, LONGEST_WAIT_SECONDS), problem.text) if wait > 0 else self._give_back(job)


def _subject(job: Job) -> str:
    """The address as an incident names it."""
    return f"{job.gateway} {job.base_url}".strip()
