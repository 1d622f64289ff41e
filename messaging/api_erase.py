"""Erasing a person over REST: here and not with the leads, because their messages are stripped as well."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from leads.models import Lead
from messaging import erasing


class ErasedSerializer(serializers.Serializer[Any]):
    """What an erasure came to."""

    messages = serializers.IntegerField(help_text="Messages whose number and text were removed.")
    cancelled = serializers.IntegerField(help_text="How many of them had not left yet.")
    rows = serializers.IntegerField(help_text="Rejected rows of imports that spoke of them: emptied.")
    files = serializers.IntegerField(help_text="Uploaded files of leads that were removed.")
    files_later = serializers.IntegerField(help_text="Files that go when their import has ended.")


class EraseView(APIView):
    """Erase one person."""

    @extend_schema(operation_id="lead_erase", request=None, responses=ErasedSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Delete the lead and its history, strip its messages, empty the rejected rows of imports that speak of it, and
        remove the owner's uploaded files. The number stays suppressed, as a hash. For good."""
        lead = get_object_or_404(Lead.objects.changeable_by(request.user), pk=pk)
        done = erasing.erase(lead=lead, by=cast("User", request.user), now=timezone.now())
        return Response(ErasedSerializer(done).data)
