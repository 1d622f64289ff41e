"""One chaos run on servers that may be destroyed: load and harm by the plan, calm, and the judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from config.chaos import webhook
from config.chaos.doubling import Doubling
from config.chaos.errors import moved, unexpected
from config.chaos.evidence import Evidence
from config.chaos.fleet import (
    TEXT,
    Load,
    make_fleet,
)
from config.chaos.gateway import FORGETFUL, known_here
from config.chaos.gather import PATIENCE_SECONDS, gather, settle
from config.chaos.incidents import Log
from config.chaos.judge import Finding, judge
from config.chaos.performance import Performance
from config.chaos.plan import (
    LEASE_SECONDS,
    Plan,
)
from config.chaos.servers import Servers
from config.chaos.troupe import SIMULATOR, WEB, Troupe, cast
from config.chaos.visitor import Visitor
from config.demo.ledger import Judge
from config.stack.children import Children
from config.stack.ports import any_free_port
from config.stack.programs import Ports

HARMED = "requests while harm was done"
READY_SECONDS = 120.0
SETTLE_SECONDS = 10.0
SHARDS = 4

SETTINGS: Mapping[str, str] = {
    "FLOTILLA_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "FLOTILLA_IDLE_TRANSACTION_SECONDS": "3",
    "FLOTILLA_RETRY_MINUTES": "0.01,0.02,0.05,0.1,0.15",
    "FLOTILLA_REPUBLISH_SECONDS": "2",
    "FLOTILLA_UNKNOWN_CLOSE_HOURS": "0.003",
    "FLOTILLA_LOG_LEVEL": "INFO",
}
"""Times shortened, so that a minute holds what otherwise takes hours."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    evidence: Evidence
    findings: list[Finding]
    notes: Mapping[str, int]
    """Numbers that explain the run, for the table."""


@dataclass
class Theatre:
    """Where a run takes place. ``environment`` names servers whose data is ours to destroy."""

    root: Path
    environment: Mapping[str, str] = field(repr=False)
    children: Children
    say: Callable[[str], None]
    check: Callable[[], None]


def perform(theatre: Theatre, plan: Plan, *, patience: float = PATIENCE_SECONDS) -> Outcome:
    """Start, harm, calm, judge. Raises StackError when the stack does not come up.

    ``patience``: for how many seconds anything may stand still once there is calm.
    """
    known_here()  # campaigns are launched from this process too
    simulator, web = any_free_port(), any_free_port()
    ports = Ports(web=web, flower=web, simulator=simulator)  # Flower takes no part
    url, secret = ports.urls()[SIMULATOR], webhook.make_secret()
    environment = {
        **theatre.environment,
        **SETTINGS,
        **webhook.environment(secret),
        "FLOTILLA_STUCK_QUEUED_MINUTES": f"{plan.stuck_minutes:g}",
        "FLOTILLA_SHARDS": str(SHARDS),
        "FLOTILLA_GATEWAY_URLS": f"simulator={url},{FORGETFUL}={url}",
    }
    log = Log(say=theatre.say)
    fleet = make_fleet(plan)
    parts = cast(root=theatre.root, ports=ports, environment=environment, shards=SHARDS)
    logs = [theatre.root / "logs" / f"{part.name}.log" for part in parts]
    for old in (theatre.root / "simulator.jsonl", *logs):
        old.unlink(missing_ok=True)
    troupe = Troupe(parts=parts, children=theatre.children, logs=theatre.root / "logs", plan=plan, log=log)
    troupe.start(seconds=READY_SECONDS, check=theatre.check)
    witness = Judge(url=url, token=environment["SIMULATOR_CONTROL_TOKEN"])
    if webhook.taken_here():
        witness.set_webhook(webhook.settings(web_url=ports.urls()[WEB], secret=secret))
    servers = Servers(theatre.root, environment["DATABASE_URL"], environment["REDIS_URL"])
    load, doubling = Load(fleet), Doubling(seed=plan.seed)
    visitor = Visitor(url=ports.urls()[WEB], token=fleet.token, seed=plan.seed, text=TEXT, choose=fleet.choose)
    performance = Performance(
        plan=plan,
        troupe=troupe,
        servers=servers,
        witness=witness,
        log=log,
        fleet=fleet,
        load=load,
        visitor=visitor,
        check=theatre.check,
        patience=patience,
    )
    for thread in (load, visitor, doubling):
        thread.start()
    try:
        stuck = performance.harm()
    finally:
        doubling.end()
        load.finish()
        visitor.finish()
        servers.release()
    stuck += performance.calm()
    doubling.join()
    troupe.end_for_good()
    settle(seconds=SETTLE_SECONDS)
    evidence = gather(
        witness=witness,
        expected=fleet.expected,
        incidents=log.incidents,
        stuck=stuck,
        problems=[*load.problems, *visitor.problems],
        errors=unexpected(logs),
        moved=moved(logs).union(*(rogue.released for rogue in performance.rogues)),
        stops=load.stops,
        opt_outs=load.opt_outs,
        accepted=visitor.accepted,
    )
    notes = {
        HARMED: sum(entry.begin < performance.calm_at for entry in evidence.entries),
        "tasks repeated late": doubling.copies,
        "requests repeated to the API": visitor.repeats,
        "releases into taken lanes refused": sum(rogue.refused for rogue in performance.rogues),
        "releases into lanes just freed": sum(len(rogue.released) for rogue in performance.rogues),
        "campaigns left out because the machine was behind": performance.left_out,
    }
    return Outcome(evidence, judge(evidence), notes)
