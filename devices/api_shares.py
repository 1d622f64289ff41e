"""With whom a device is shared, over REST."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices import sharing
from devices.access import may_change_row
from devices.models import Device, DeviceShare


class ShareSerializer(serializers.Serializer[Any]):
    """Somebody who may look at a device, its leads and its messages, and change none of them."""

    user = serializers.IntegerField(source="user_id")
    username = serializers.CharField(source="user.username")
    since = serializers.DateTimeField(source="created_at")


class SharesSerializer(serializers.Serializer[Any]):
    """Everybody with whom the device is shared, by name."""

    shares = ShareSerializer(many=True)


class ShareWithSerializer(serializers.Serializer[Any]):
    """Whom to share it with."""

    username = serializers.CharField(max_length=150, help_text="Of an active team member, or of staff.")


class _OfOwnDevice(APIView):
    """For those who may change the device."""

    def device(self, request: Request, pk: int) -> Device:
        """Whoever a device is shared with does not share it on."""
        device: Device = get_object_or_404(Device.objects.visible_to(request.user).defer("credentials"), pk=pk)
        if not may_change_row(request.user, device):
            raise PermissionDenied("You may look at this device, but not share it.")
        return device


class SharesView(_OfOwnDevice):
    """Who may look at it."""

    @extend_schema(operation_id="device_shares", responses=SharesSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """With whom the device is shared."""
        found = DeviceShare.objects.filter(device=self.device(request, pk)).select_related("user")
        return Response(SharesSerializer({"shares": found.order_by("user__username")}).data)

    @extend_schema(
        operation_id="device_share",
        request=ShareWithSerializer,
        responses={201: ShareSerializer, 200: OpenApiResponse(ShareSerializer, "It was shared with them before.")},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Let somebody look at the device and at what hangs on it."""
        device = self.device(request, pk)
        given = ShareWithSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = sharing.lookers().filter(username=given.validated_data["username"]).first()
        if user is None:
            text = "No active team member or staff has this name; admins see every device, operators none."
            raise serializers.ValidationError({"username": text}, "does_not_exist")
        made, is_new = sharing.share(device=device, user=user)
        return Response(ShareSerializer(made).data, status=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK)


class ShareView(_OfOwnDevice):
    """One of them."""

    @extend_schema(operation_id="device_unshare", responses={204: None})
    def delete(self, request: Request, pk: int, user: int) -> Response:
        """They no longer see the device."""
        if not sharing.unshare(device=self.device(request, pk), user_id=user):
            raise Http404
        return Response(status=status.HTTP_204_NO_CONTENT)
