"""Many leads in one request. Files of any length go through :mod:`leads.api_imports`."""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from leads import changes, services
from leads.api import LeadSerializer

MOST = 200


class LeadBatchSerializer(serializers.Serializer[Any]):
    """Leads to create or merge, each as when it is posted alone."""

    leads = LeadSerializer(many=True, allow_empty=False, max_length=MOST)  # type: ignore[call-arg]  # the list takes it


class LeadBatchResultSerializer(serializers.Serializer[Any]):
    """The leads as they are now, in the order given."""

    created = serializers.IntegerField()
    merged = serializers.IntegerField(help_text="How many numbers were there already.")
    leads = LeadSerializer(many=True)


class LeadBatchView(APIView):
    """Up to 200 leads at once."""

    @extend_schema(operation_id="leads_batch", request=LeadBatchSerializer, responses=LeadBatchResultSerializer)
    def post(self, request: Request) -> Response:
        """Create leads, or merge into those with these numbers: all of them, or none if anything is wrong with one."""
        given = LeadBatchSerializer(data=request.data, context={"request": request, "view": self})
        given.is_valid(raise_exception=True)
        user, now = cast("User", request.user), timezone.now()
        rows = given.validated_data["leads"]
        found: dict[int, Any] = {}
        created = 0
        with transaction.atomic():
            # In the order of their numbers, so that two requests at once never wait for each other in a circle.
            for place in sorted(range(len(rows)), key=lambda at: rows[at]["phone"]):
                row = rows[place]
                noted = changes.noted(
                    owner_id=user.pk, phone=row["phone"], channel=changes.Channel.API, now=now, by=user
                )
                with noted:
                    lead, is_new = services.upsert_lead(owner=user, region=settings.FLOTILLA_DEFAULT_REGION, **row)
                found[place] = lead
                created += is_new
        leads = [found[place] for place in range(len(rows))]
        answer = {"created": created, "merged": len(leads) - created, "leads": leads}
        return Response(LeadBatchResultSerializer(answer, context={"request": request, "view": self}).data)
