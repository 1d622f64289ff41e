"""What an import may be told: duplicates, mapping, dry run, drafts; what it survives; and when its file goes."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from leads import drafts, services, uploads
from leads.imports import ImportRefused, LeadFileProblem
from leads.models import Lead, LeadImport, LeadImportProblem
from tests.factories import make_device, make_user

pytestmark = pytest.mark.django_db


def create(content: str, *, owner: User | None = None, **fields: Any) -> LeadImport:
    given = {"filename": "people.csv", "region": "MY", "consent_source": "", **fields}
    return services.create_import(owner=owner or make_user(), file=io.BytesIO(content.encode()), **given)


def run(content: str, *, chunk_rows: int = 5000, **fields: Any) -> LeadImport:
    return services.run_import(import_id=create(content, **fields).pk, chunk_rows=chunk_rows)


def counts(lead_import: LeadImport) -> dict[str, int]:
    names = ("accepted", "merged", "skipped", "rejected")
    return {name: getattr(lead_import, name) for name in names if getattr(lead_import, name)}


HEADER = "name,phone,niche,target_status,trigger,notes,city,consent_at,consent_source,opted_out_at\n"


# -- Duplicates --------------------------------------------------------------------------------------------------------


def test_skipping_leaves_a_lead_alone_but_hears_a_refusal() -> None:
    owner = make_user()
    run(HEADER + "Ali,0123456789,A,,,,Ipoh,,,\nBibi,0133456789,,,,,,,,\n", owner=owner)
    before = Lead.objects.get(name="Ali")
    again = HEADER + "X,0123456789,B,customer,,n,KL,,,\nY,0133456789,,,,,,,,2026-03-01\nCici,0143456789,,,,,,,,\n"
    assert counts(run(again, owner=owner, duplicates="skip")) == {"accepted": 1, "skipped": 2}
    after = Lead.objects.get(name="Ali")
    assert {**vars(after), "_state": None} == {**vars(before), "_state": None}
    assert Lead.objects.get(name="Bibi").opted_out_at == datetime(2026, 3, 1, tzinfo=UTC)


def test_overwriting_takes_what_the_file_says_and_nothing_that_it_leaves_out() -> None:
    owner = make_user()
    device = make_device(owner=owner)
    run(
        HEADER + "Ali,0123456789,A,customer,T,mine,Ipoh,2026-01-01,fair,\nBibi,0133456789,A,customer,,,,,,2026-01-05\n",
        owner=owner,
        device=device,
    )
    lead_import = run(
        HEADER + "Aliya,0123456789,B,,,,KL,2026-02-01,shop,\n,0133456789,,prospect,,,,2026-02-01,shop,\n",
        owner=owner,
        duplicates="overwrite",
    )
    assert counts(lead_import) == {"merged": 2}
    ali, bibi = Lead.objects.order_by("pk")
    assert (ali.name, ali.niches, ali.triggers, ali.notes, ali.status) == ("Aliya", ["B"], ["T"], "mine", "customer")
    assert (ali.custom, ali.device) == ({"city": "KL"}, device)
    assert (ali.consent_at, ali.consent_source) == (datetime(2026, 2, 1, tzinfo=UTC), "shop")
    assert (bibi.name, bibi.niches, bibi.status) == ("Bibi", ["A"], "prospect")
    assert (bibi.consent_at, bibi.opted_out_at) == (None, datetime(2026, 1, 5, tzinfo=UTC))


def test_consent_by_row_goes_before_that_of_the_file_and_a_refusal_gets_none() -> None:
    run(
        HEADER + "Own,0123456780,,,,,,2026-01-01,fair,\nSource,0123456781,,,,,,,shop,\nFile,0123456782,,,,,,,,\n"
        "Gone,0123456783,,,,,,,,2026-01-02\nBad,0123456784,,,,,,31/01/2026,,\n",
        consent_source="counter",
    )
    found = {lead.name: (lead.consent_at, lead.consent_source, lead.opted_out_at) for lead in Lead.objects.all()}
    assert found["Own"] == (datetime(2026, 1, 1, tzinfo=UTC), "fair", None)
    assert (found["Source"][1], found["File"][1]) == ("shop", "counter")
    assert found["Source"][0] is not None
    assert found["File"][0] is not None
    assert found["Gone"] == (None, "", datetime(2026, 1, 2, tzinfo=UTC))
    assert LeadImportProblem.objects.get().code == "consent_at_invalid"


_NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # which would import hundreds of times
_row = st.tuples(
    st.sampled_from(["", "Ali", "Bibi"]),
    st.integers(0, 2),
    st.lists(st.sampled_from("ABC"), max_size=2),
    st.sampled_from(["", "prospect", "customer"]),
    st.sampled_from(["", "n1", "n2"]),
    st.sampled_from(["", "c1", "c2"]),
    st.sampled_from([",,", "2026-01-01,fair,", "2026-02-02,shop,", ",,2026-03-03", "2026-01-01,fair,2026-04-04"]),
)


@pytest.mark.parametrize("policy", LeadImport.Duplicates.values)
@given(rows=st.lists(_row, min_size=2, max_size=8))
@settings(
    max_examples=12, deadline=None, phases=_NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_policy_does_the_same_within_a_chunk_and_across_and_a_dry_run_counts_it(
    policy: str, rows: list[Any]
) -> None:
    content = HEADER + "".join(
        f"{name},+6012000000{number},{';'.join(tags)},{status},{';'.join(tags)},{notes},{city},{consent}\n"
        for name, number, tags, status, notes, city, consent in rows
    )
    fields = ("phone", "name", "status", "niches", "triggers", "notes", "custom", "consent_at", "consent_source",
              "opted_out_at")  # fmt: skip
    found = []
    for chunk_rows in (1, 3, 100):
        owner = make_user()
        dry = run(content, owner=owner, duplicates=policy, dry_run=True, chunk_rows=chunk_rows)
        assert not Lead.objects.filter(owner=owner).exists()
        done = run(content, owner=owner, duplicates=policy, chunk_rows=chunk_rows)
        assert counts(dry) == counts(done)
        found.append((counts(done), list(Lead.objects.filter(owner=owner).order_by("phone").values(*fields))))
    assert found[0] == found[1] == found[2]


# -- Drafts and dry runs -----------------------------------------------------------------------------------------------


def test_a_draft_shows_what_it_would_become_and_waits() -> None:
    owner = make_user()
    run("name,phone\nAli,0123456789\n", owner=owner)
    draft = create(
        "Who,Ring me,phone\nAli,0123456789,x\nBibi,0133456789,x\nBibi,0133456789,x\n", owner=owner, draft=True
    )
    assert services.run_import(import_id=draft.pk).state == "draft"
    assert services.idle_imports(now=timezone.now() + timedelta(hours=1)) == []
    seen = drafts.preview(draft)
    assert [column.field for column in seen.columns] == ["custom.who", "custom.ring_me", "phone"]
    assert [row.outcome for row in seen.rows] == ["rejected"] * 3
    mapping = ["name", "phone", "skip"]
    seen = drafts.preview(draft, mapping=mapping)
    assert [row.outcome for row in seen.rows] == ["merged", "new", "merged"]
    assert seen.rows[1].values == {"Who": "Bibi", "Ring me": "0133456789", "phone": "x"}
    assert seen.columns[1].samples == ("0123456789", "0133456789", "0133456789")

    drafts.confirm(lead_import=draft, mapping=mapping, dry_run=True)
    dry = services.run_import(import_id=draft.pk)
    assert (dry.state, counts(dry), Lead.objects.count()) == ("finished", {"accepted": 1, "merged": 2}, 1)
    drafts.confirm(lead_import=draft, duplicates="skip")
    done = services.run_import(import_id=draft.pk)
    assert (done.state, counts(done), done.rows_done) == ("finished", {"accepted": 1, "skipped": 2}, 3)
    assert Lead.objects.get(name="Bibi").custom == {}
    with pytest.raises(ImportRefused) as caught:
        drafts.confirm(lead_import=draft)
    assert caught.value.code == "import_not_a_draft"


def test_a_file_without_a_known_phone_column_can_be_previewed_and_mapped() -> None:
    draft = create("Who,Contact\nAli,0123456789\n", draft=True)
    seen = drafts.preview(draft)
    assert (seen.rows, seen.problem.split(":")[0][:30]) == ((), "No column is called “phone” (f")
    with pytest.raises(ImportRefused):
        drafts.confirm(lead_import=draft)
    drafts.confirm(lead_import=draft, mapping=["name", "phone"])
    assert counts(services.run_import(import_id=draft.pk)) == {"accepted": 1}


@pytest.mark.parametrize(
    ("mapping", "remedy"),
    [
        (["phone"], "one for each"),
        (["phone", "phone"], "choose one"),
        (["name", "skip"], "No column is the phone number"),
        (["phone", "custom.two words"], "letters, digits and underscores"),
        (["phone", "city"], "use one of"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(mapping: list[str], remedy: str) -> None:
    draft = create("phone,name\n0123456789,Ali\n", draft=True)
    for refuse in (drafts.preview, lambda it, mapping: drafts.confirm(lead_import=it, mapping=mapping)):
        with pytest.raises(ImportRefused, match=remedy) as caught:
            refuse(draft, mapping=mapping)
        assert (caught.value.code, caught.value.field) == ("mapping_invalid", "mapping")
    assert remedy in run("phone,name\n0123456789,Ali\n", mapping=mapping).error


def test_a_dry_run_that_was_interrupted_begins_again() -> None:
    lead_import = create("name,phone\nAli,0123456789\nBad,1\nBibi,0133456789\nAli,0123456789\n", dry_run=True)

    def stop(_: LeadImport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        services.run_import(import_id=lead_import.pk, chunk_rows=2, on_progress=stop)
    done = services.run_import(import_id=lead_import.pk, chunk_rows=2)
    assert (done.rows_done, counts(done)) == (4, {"accepted": 2, "merged": 1, "rejected": 1})
    assert not Lead.objects.exists()


# -- What it survives --------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_an_import_that_fails_again_and_again_at_the_same_row_is_given_up() -> None:
    lead_import = create("phone\n" + "".join(f"+6012{n:07d}\n" for n in range(6)))
    other = connection.copy()
    try:
        with connection.cursor() as here, other.cursor() as there:
            here.execute("SET lock_timeout = '20ms'")

            def get_in_the_way(now: LeadImport) -> None:
                there.execute("SELECT pg_advisory_lock(hashtext(%s), %s)", ["flotilla.leads.owner", now.owner_id])

            def start() -> LeadImport:
                return services.run_import(import_id=lead_import.pk, chunk_rows=2, on_progress=get_in_the_way)

            for _ in range(services.ATTEMPTS_MOST + 1):  # the first one gets two rows in, which is progress
                with pytest.raises(OperationalError):
                    start()
            done = start()
    finally:
        other.close()
        connection.close()
    assert (done.state, done.rows_done, Lead.objects.count()) == ("failed", 2, 2)
    assert "after 2 rows" in done.error
    assert services.idle_imports(now=timezone.now() + timedelta(hours=1)) == []


def test_a_row_that_the_database_refuses_costs_only_itself() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE leads_lead ADD CONSTRAINT test_name CHECK (name <> 'P7')")
    content = "name,phone\n" + "".join(f"P{n},+6012{n:07d}\n" for n in range(20)) + "Bad,1\n"
    done = run(content, chunk_rows=10)
    assert (done.state, done.rows_done, counts(done)) == ("finished", 21, {"accepted": 19, "rejected": 2})
    refused, bad = LeadImportProblem.objects.all()
    assert (refused.row_number, refused.code, refused.values["name"]) == (9, "not_storable", "P7")
    assert bad.row_number == 22


# -- Files -------------------------------------------------------------------------------------------------------------


def test_files_go_after_their_time_and_forgotten_drafts_end(tmp_path: Path) -> None:
    now = timezone.now()
    old, young, waiting = run("phone\n0123456789\n"), run("phone\n0123456789\n"), create("phone\n0123456789\n")
    forgotten = create("phone\n0123456789\n", draft=True)
    LeadImport.objects.filter(pk=old.pk).update(finished_at=now - timedelta(days=8))
    LeadImport.objects.filter(pk=forgotten.pk).update(created_at=now - timedelta(days=8))
    LeadImport.objects.filter(pk=waiting.pk).update(created_at=now - timedelta(days=8))
    orphan = tmp_path / "imports" / "2026" / "01" / "left.csv"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_text("phone\n")
    os.utime(orphan, (now.timestamp() - 8 * 86400,) * 2)
    assert uploads.remove_old(now=now, keep_days=7) == 3
    assert {path.name for path in tmp_path.rglob("*.csv")} == {Path(it.file.name).name for it in (young, waiting)}
    forgotten.refresh_from_db()
    assert (forgotten.state, bool(forgotten.file)) == ("failed", False)
    assert "never confirmed" in forgotten.error
    old.refresh_from_db()
    assert (old.state, bool(old.file)) == ("finished", False)
    with pytest.raises(LeadFileProblem, match="upload it again"):
        drafts.preview(old)
    assert uploads.remove_old(now=now, keep_days=7) == 0
