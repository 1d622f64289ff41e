from __future__ import annotations

import json

import pytest
from django.db import connection, transaction
from django.test import Client, override_settings
from django.urls import path
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from config.api.problems import CODES
from config.urls import handler400, handler403, handler404, handler500  # noqa: F401
from config.urls import urlpatterns as real_urlpatterns
from devices.models import Device
from leads.models import Segment
from tests.api_support import V1, at_once, caller, fields_of, problem
from tests.factories import make_campaign, make_device, make_user

pytestmark = pytest.mark.django_db


class Breaks(APIView):
    """A mistake of ours, with something in its text that must not get out."""

    def get(self, request):
        raise RuntimeError("password=hunter2")

    def post(self, request):
        return Response({"read": len(request.data)})


urlpatterns = [path("api/v1/test/breaks", Breaks.as_view()), *real_urlpatterns]


def test_unknown_address_of_the_api_is_a_problem_and_of_the_site_a_page():
    problem(APIClient().get("/api/v1/nothing"), 404, "not_found")
    problem(APIClient().get("/api/"), 404, "not_found")
    page = Client().get("/nothing")
    assert page.status_code == 404
    assert page["Content-Type"].startswith("text/html")


def test_somebody_elses_row_and_no_row_look_alike():
    device = make_device(owner=make_user())
    client = caller()
    theirs = problem(client.get(f"{V1}/devices/{device.pk}"), 404, "not_found")
    nobodys = problem(client.get(f"{V1}/devices/{device.pk + 10_000}"), 404, "not_found")
    assert theirs == nobodys


def test_nobody_and_wrong_token_are_told_how_to_log_in():
    anonymous = APIClient().get(f"{V1}/devices")
    problem(anonymous, 401, "not_authenticated")
    assert anonymous["WWW-Authenticate"] == "Token"
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION="Token 0123456789abcdef")
    problem(client.get(f"{V1}/devices"), 401, "authentication_failed")
    client.credentials(HTTP_AUTHORIZATION="Token \xff")
    problem(client.get(f"{V1}/devices"), 401, "authentication_failed")
    problem(client.post(f"{V1}/pools", {}, headers={"Idempotency-Key": "a"}), 401, "authentication_failed")


def test_read_only_role_is_forbidden_to_write():
    problem(caller(role="team").post(f"{V1}/pools", {"name": "x"}), 403, "permission_denied")


def test_wrong_method_names_the_right_ones():
    response = caller().delete(f"{V1}/devices")
    problem(response, 405, "method_not_allowed")
    assert "POST" in response["Allow"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        ("{", "application/json", 400, "parse_error"),
        ("[]", "application/json", 400, "invalid"),
        ('"text"', "application/json", 400, "invalid"),
        ("<a/>", "application/xml", 415, "unsupported_media_type"),
        ("no parts", "multipart/form-data; boundary=x", 400, "invalid"),
    ],
)
def test_bodies_that_cannot_be_read(body, content_type, status, code):
    problem(caller().generic("POST", f"{V1}/devices", body, content_type=content_type), status, code)


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000)
def test_a_body_over_the_limit_is_refused_with_and_without_a_key():
    client, body = caller(), {"name": "x" * 2000}
    problem(client.post(f"{V1}/pools", body), 413, "too_large")
    problem(client.post(f"{V1}/pools", body, headers={"Idempotency-Key": "k"}), 413, "too_large")


def test_an_answer_in_another_format_is_refused():
    problem(caller().get(f"{V1}/devices", headers={"Accept": "application/xml"}), 406, "not_acceptable")


def test_a_method_that_an_address_does_not_take_is_said_before_the_format():
    accept = {"Accept": "application/json"}
    problem(caller().generic("TRACE", f"{V1}/leads/export?format=csv", headers=accept), 405, "method_not_allowed")
    problem(caller().delete(f"{V1}/leads/export?format=csv", headers=accept), 405, "method_not_allowed")
    problem(caller().get(f"{V1}/leads/export?format=csv", headers=accept), 406, "not_acceptable")


def test_every_bad_field_is_named_with_a_code_and_words():
    body = problem(
        caller().post(f"{V1}/devices", {"gateway": "pigeon", "lanes": 0, "delay_min_seconds": "soon", "pool": 999_999}),
        400,
        "invalid",
    )
    assert fields_of(body) == {
        "name": "required",
        "gateway": "invalid_choice",
        "lanes": "min_value",
        "delay_min_seconds": "invalid",
        "pool": "does_not_exist",
    }
    assert all(error["message"] for error in body["errors"])


def test_nested_values_are_named_by_their_path():
    body = problem(
        caller().post(f"{V1}/campaigns", {"name": "c", "text": "x", "niches": ["ok", "y" * 61]}), 400, "invalid"
    )
    assert fields_of(body) == {"niches.1": "max_length"}


@pytest.mark.parametrize("number", ["1e999", '"inf"', '"nan"', "NaN", "Infinity"])
def test_a_number_that_is_none_is_refused(number):
    text = f'{{"name": "c", "text": "x", "delay_max_seconds": {number}}}'
    response = caller().generic("POST", f"{V1}/campaigns", text, content_type="application/json")
    problem(response, 400, response.json()["code"])
    assert response.json()["code"] in {"invalid", "parse_error"}


@pytest.mark.parametrize("value", ['"\\u0000"', "1e999"])
def test_json_that_the_database_cannot_hold_is_the_callers_problem(value):
    client = caller()
    device = make_device(owner=client.user)
    with transaction.atomic():  # PostgreSQL refuses the statement, and with it everything up to here
        problem(
            client.generic(
                "PATCH",
                f"{V1}/devices/{device.pk}",
                f'{{"options": {{"a": {value}}}}}',
                content_type="application/json",
            ),
            400,
            "invalid",
        )
        transaction.set_rollback(True)


@pytest.mark.parametrize("address", ["devices/99999999999999999999", "devices/0", "messages/99999999999999999999"])
def test_impossible_ids_are_not_found(address):
    problem(caller().get(f"{V1}/{address}"), 404, "not_found")


def test_a_bad_filter_is_a_bad_value():
    assert fields_of(problem(caller().get(f"{V1}/devices?state=asleep"), 400, "invalid")) == {"state": "invalid_choice"}
    assert fields_of(problem(caller().get(f"{V1}/messages?lead=me"), 400, "invalid")) == {"lead": "invalid"}


@override_settings(ROOT_URLCONF=__name__)
def test_a_mistake_of_ours_tells_nothing_of_its_cause(caplog):
    client = caller()
    client.raise_request_exception = False
    response = client.get(f"{V1}/test/breaks")
    problem(response, 500, "error")
    assert b"hunter2" not in response.content
    assert "RuntimeError" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_two_rows_of_one_name_at_once_are_one_row_and_one_refusal():
    user = make_user()
    clients = [caller(user) for _ in range(6)]
    body = {"name": "same", "gateway": "simulator", "credentials": {"token": "t"}}
    answers = at_once(6, lambda index: clients[index].post(f"{V1}/devices", body))
    assert sorted({answer.status_code for answer in answers} - {400, 409}) == [201]
    assert [answer.status_code for answer in answers].count(201) == 1
    assert Device.objects.filter(owner=user).count() == 1
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "conflict")


def test_a_write_to_a_row_that_others_need_says_which():
    client = caller()
    segment = Segment.objects.create(owner=client.user, name="All")
    make_campaign(owner=client.user, segment=segment)
    body = problem(client.delete(f"{V1}/segments/{segment.pk}"), 409, "in_use")
    assert "campaigns" in body["detail"]


def test_every_code_has_a_status_of_its_kind_and_a_title():
    assert all(400 <= status < 600 and title for status, title in CODES.values())
    assert json.dumps(CODES)


def test_health_needs_no_log_in_and_no_database(django_assert_num_queries):
    with django_assert_num_queries(0):
        response = APIClient().get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert connection.vendor == "postgresql"


def test_the_front_door_leads_to_the_admin():
    response = Client().get("/")
    assert (response.status_code, response["Location"]) == (302, "/admin/")
