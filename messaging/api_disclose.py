"""Everything that is known of a person over REST: here and not with the leads, because most of it is messages."""

from __future__ import annotations

from typing import cast

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.views import APIView

from leads.models import Lead
from messaging import disclosing


class DiscloseView(APIView):
    """Hand a person's data out."""

    @extend_schema(
        operation_id="lead_disclose",
        request=None,
        responses={
            (200, "application/zip"): OpenApiResponse(OpenApiTypes.BINARY, description="lead.json, messages.csv")
        },
    )
    def post(self, request: Request, pk: int) -> HttpResponse:
        """Everything that is known of one lead, as a zip archive: fields, consent, changes, messages with their texts,
        replies, sequences. That it was handed out is noted under your name."""
        lead = get_object_or_404(Lead.objects.changeable_by(request.user), pk=pk)
        found = disclosing.disclose(lead=lead, by=cast("User", request.user), now=timezone.now())
        return zip_response(found)


def zip_response(found: disclosing.Disclosure) -> HttpResponse:
    """The archive as a download that nobody keeps on the way."""
    answer = HttpResponse(found.to_zip(), content_type="application/zip")
    answer["Content-Disposition"] = f'attachment; filename="{found.filename}"'
    answer["Cache-Control"] = "no-store"
    return answer
