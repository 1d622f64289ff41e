"""A device's public status link over REST: whether there is one, make it, revoke it."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices import status_links
from devices.access import may_change_row
from devices.models import Device, StatusLink


class StatusLinkSerializer(serializers.Serializer[Any]):
    """Whether somebody may look at this device without logging in."""

    created_at = serializers.DateTimeField(allow_null=True, help_text="Null: there is no link.")
    created_by = serializers.IntegerField(allow_null=True)


class MadeStatusLinkSerializer(StatusLinkSerializer):
    """A link that has just been made: shown this once, since only a digest of its key is kept."""

    address = serializers.CharField()


class StatusLinkView(APIView):
    """The link of one device, for those who may change the device."""

    @extend_schema(operation_id="device_status_link", responses=StatusLinkSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Whether there is a link, and since when. The address itself is told only when it is made."""
        return Response(StatusLinkSerializer(_told(self._device(request, pk))).data)

    @extend_schema(operation_id="device_status_link_make", request=None, responses={201: MadeStatusLinkSerializer})
    def post(self, request: Request, pk: int) -> Response:
        """Make a public, read-only link to the device's state; one made before stops working at once."""
        device = self._device(request, pk)
        key = status_links.make(device=device, by=cast("User", request.user), now=timezone.now())
        address = request.build_absolute_uri(reverse("device-status", args=[key]))
        body = MadeStatusLinkSerializer({**_told(device), "address": address}).data
        return Response(body, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})

    @extend_schema(operation_id="device_status_link_revoke", responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """The link stops working at once. Without one, nothing happens."""
        status_links.revoke(device=self._device(request, pk))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _device(self, request: Request, pk: int) -> Device:
        """Whoever only looks at a device does not decide who else does."""
        device: Device = get_object_or_404(Device.objects.visible_to(request.user).defer("credentials"), pk=pk)
        if not may_change_row(request.user, device):
            raise PermissionDenied("You may look at this device, but not at its status link.")
        return device


def _told(device: Device) -> dict[str, Any]:
    link = StatusLink.objects.filter(pk=device.pk).first()
    return {"created_at": link.created_at if link else None, "created_by": link.created_by_id if link else None}
