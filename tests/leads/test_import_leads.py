"""``manage.py import_leads``, and the sample file that comes with the project."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import phonenumbers
import pytest
from django.conf import settings as configured
from django.core.management import CommandError, call_command

from leads.imports import LeadRow, RowProblem, open_leads
from leads.models import Lead, LeadImport
from tests.factories import make_device, make_user

SAMPLE = configured.BASE_DIR / "deploy" / "sample" / "leads.csv"
SCRIPTS = {
    "Arabic": "\u0600-\u06ff", "Bengali": "\u0980-\u09ff", "Chinese": "\u4e00-\u9fff", "Cyrillic": "\u0400-\u04ff",
    "diacritics": "\u00c0-\u017f", "Greek": "\u0370-\u03ff", "Hebrew": "\u0590-\u05ff", "Hindi": "\u0900-\u097f",
    "Japanese": "\u3040-\u30ff", "Korean": "\uac00-\ud7af", "Tamil": "\u0b80-\u0bff", "Thai": "\u0e00-\u0e7f",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def write(tmp_path: Path, content: str) -> str:
    path = tmp_path / "people.csv"
    path.write_text(content, encoding="utf-8")
    return str(path)


@pytest.mark.django_db
def test_it_says_what_became_of_the_rows_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owner = make_user()
    device = make_device(owner=owner)
    path = write(tmp_path, "name,phone\nAli,0123456789\nAli,+60123456789\n[red]Bad[/red],[bold]\nBad,12\nBad,13\n")
    call_command("import_leads", path, owner=owner.username, region="my", consent="asked at the fair", device=device.pk)
    printed = " ".join(capsys.readouterr().out.split())
    assert "5 rows: 1 accepted, 1 merged into leads that were there, 3 rejected." in printed
    assert "2 phone too short row 5: “12” is too short for MY" in printed
    assert "1 phone letters row 4: “[bold]” holds letters" in printed
    lead = Lead.objects.get()
    assert (lead.owner, lead.device, lead.consent_source) == (owner, device, "asked at the fair")


@pytest.mark.django_db
def test_a_dry_run_then_an_import_that_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owner = make_user()
    path = write(tmp_path, "name,phone\nAli,0123456789\nAli,+60123456789\n")
    call_command("import_leads", path, owner=owner.username, dry_run=True)
    assert not Lead.objects.exists()
    call_command("import_leads", path, owner=owner.username, duplicates="skip")
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 rows: 1 accepted, 1 merged into leads that were there, 0 rejected." in printed
    assert "2 rows: 1 accepted, 0 merged into leads that were there, 1 skipped, 0 rejected." in printed


@pytest.mark.django_db
def test_what_it_cannot_do_is_one_clear_line(tmp_path: Path) -> None:
    owner = make_user()
    good = write(tmp_path, "phone\n0123456789\n")
    wrong = [
        (str(tmp_path / "none.csv"), {}, "none.csv cannot be read: No such file or directory."),
        (str(tmp_path), {}, "cannot be read: Is a directory."),
        (str(Path(sys.executable).resolve()), {}, "The file is not text"),
        (good, {"owner": "nobody"}, "There is no user called “nobody”."),
        (good, {"region": "Mars"}, "“Mars” is no country code"),
        (good, {"device": 10**6}, "There is no device 1000000."),
        (good, {"device": make_device(owner=make_user()).pk}, "belongs to somebody else"),
    ]
    for path, options, expected in wrong:
        with pytest.raises(CommandError) as caught:
            call_command("import_leads", path, **{"owner": owner.username, **options})
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not LeadImport.objects.exists()


@pytest.mark.django_db
def test_a_file_that_turns_out_unreadable_fails_the_command(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="has no rows"):
        call_command("import_leads", write(tmp_path, "name,phone\n"), owner=make_user().username)
    assert LeadImport.objects.get().state == "failed"


def test_the_exit_code_is_not_zero_and_there_is_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "import_leads", "none.csv"],
        cwd=configured.BASE_DIR, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--owner" in done.stderr
    assert "Traceback" not in done.stderr


# -- The sample --------------------------------------------------------------------------------------------------------


def sample() -> list[LeadRow | RowProblem]:
    with SAMPLE.open("rb") as file:
        return list(open_leads(file).rows(region="MY"))


def test_the_sample_shows_the_world_and_its_mistakes() -> None:
    rows = sample()
    people = [row for row in rows if isinstance(row, LeadRow)]
    problems = Counter(row.code for row in rows if isinstance(row, RowProblem))
    countries = {phonenumbers.region_code_for_number(phonenumbers.parse(row.phone)) for row in people}
    assert len(rows) >= 560
    assert len(countries) >= 25
    assert len(people) > len({row.phone for row in people})
    assert 15 <= problems.total() <= 30
    assert {"phone_missing", "phone_too_short", "phone_letters", "phone_damaged", "status_unknown"} <= set(problems)
    text = SAMPLE.read_text(encoding="utf-8")
    assert text.startswith("name,phone,niche,target_status,trigger\n")
    for script, letters in SCRIPTS.items():
        first, last = letters[0], letters[-1]
        assert any(first <= character <= last for character in text), script


@pytest.mark.django_db
def test_the_sample_goes_in(capsys: pytest.CaptureFixture[str]) -> None:
    rows = sample()
    call_command("import_leads", str(SAMPLE), owner=make_user().username, consent="sample data")
    lead_import = LeadImport.objects.get()
    people = {row.phone for row in rows if isinstance(row, LeadRow)}
    assert (lead_import.accepted, lead_import.rows_done) == (len(people), len(rows))
    assert lead_import.merged + lead_import.rejected == len(rows) - len(people)
    assert set(Lead.objects.values_list("phone", flat=True)) == people
    assert "phone damaged" in capsys.readouterr().out
