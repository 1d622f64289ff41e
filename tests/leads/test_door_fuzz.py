"""Whatever comes in through the doors for leads, signed or as a file: an answer in words, never a breakdown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leads import services
from leads.models import LeadImport
from tests.api_support import V1, caller
from tests.leads.test_sheets import _GOOD
from tests.leads.test_sources import make_source, post

pytestmark = pytest.mark.django_db(transaction=True)  # an import has a connection of its own
FEW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)

NAMES = st.sampled_from(
    ["phone", "region", "name", "status", "niches", "triggers", "notes", "custom", "device", "event_id", "consent_at"]
)
LEAVES = st.one_of(
    st.sampled_from(["012-345 6789", "+60123456789", "MY", "customer", "\0", "\ud800", "x" * 5_000, "1e999", ""]),
    st.none(), st.booleans(), st.floats(), st.integers(), st.integers(min_value=2**63), st.text(max_size=20),
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner), max_leaves=8
)
SAID = st.dictionaries(NAMES, VALUES, max_size=6).map(lambda said: {"phone": "012-345 6789", **said})
LINES = st.lists(
    st.text(alphabet='phone,name;\t"0123456789+@=\n\r\u200f\ud83d', max_size=30), max_size=6
).map(lambda lines: ("phone,name\n" + "\n".join(lines)).encode("utf-8", "surrogatepass"))  # fmt: skip
FILES = st.one_of(
    st.binary(max_size=300).map(lambda data: ("f.csv", data)),
    LINES.map(lambda data: ("f.csv", data)),
    st.tuples(st.integers(0, len(_GOOD) - 1), st.binary(min_size=1, max_size=20)).map(
        lambda cut: ("f.xlsx", _GOOD[: cut[0]] + cut[1] + _GOOD[cut[0] + len(cut[1]) :])
    ),
    st.tuples(st.sampled_from(["f", "a.bin", "ü \u200f.CSV", "x" * 190 + ".csv", "f.xlsx"]), st.binary(max_size=30)),
)


@FEW
@given(said=SAID)
def test_whatever_somebody_signs_is_taken_or_refused_in_words(said):
    source, secret = make_source()
    answer = post(source, secret, json.dumps(said).encode())
    assert answer.status_code in {200, 201, 400, 422}, answer.content
    told = answer.json()
    assert "lead" in told or told["errors"] or told["detail"]


@FEW
@given(file=FILES, mapping=st.lists(st.sampled_from(["phone", "name", "skip", "custom.x", "moon"]), max_size=3))
def test_whatever_is_handed_in_as_a_file_is_read_or_refused_in_words(file, mapping, tmp_path):
    client = caller()
    with settings_of(tmp_path):
        handed_in = {"file": SimpleUploadedFile(*file), "draft": "true"}
        answer = client.post(f"{V1}/leads/imports", handed_in, format="multipart")
        assert answer.status_code in {202, 400, 422}, answer.content
        if answer.status_code != 202:
            assert answer.json()["detail"]
            return
        address = f"{V1}/leads/imports/{answer.json()['id']}"
        assert client.get(f"{address}/preview").status_code in {200, 400, 409, 422}
        assert client.post(f"{address}/preview", {"mapping": mapping}).status_code in {200, 400, 409, 422}
        confirmed = client.post(f"{address}/confirm", {})
        assert confirmed.status_code in {202, 400, 409, 422}, confirmed.content
        if confirmed.status_code == 202:
            services.run_import(import_id=answer.json()["id"])
            state = LeadImport.objects.get(pk=answer.json()["id"]).state
            assert state in {LeadImport.State.FINISHED, LeadImport.State.FAILED}
        b"".join(client.get(f"{address}/problems.csv").streaming_content)


def settings_of(tmp_path: Any) -> Any:
    """Files of imports go there."""
    from django.test import override_settings

    return override_settings(MEDIA_ROOT=tmp_path)
