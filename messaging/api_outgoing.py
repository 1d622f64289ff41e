"""Outgoing webhooks over REST: subscribe, change the secret, see what was told, tell it again."""

from __future__ import annotations

from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from devices.api_base import OwnedSerializer, OwnedViewSet
from devices.api_rotating import RotatingSecretViewSet
from messaging.outgoing import subscribing
from messaging.outgoing.kinds import Kind
from messaging.outgoing.models import Delivery, Subscriber


class SubscriberSerializer(OwnedSerializer):
    """An address that is told what happens, in calls that are signed with a secret that is shown once."""

    class Meta:
        model = Subscriber
        fields = [
            "id", "owner", "name", "url", "kinds", "enabled", "disabled_reason", "failing_since", "failures",
            "last_error", "held_until", "last_called_at", "previous_until", "created_at",
        ]  # fmt: skip
        read_only_fields = [
            "owner", "disabled_reason", "failing_since", "failures", "last_error", "held_until", "last_called_at",
            "previous_until", "created_at",
        ]  # fmt: skip


class NewSubscriberSerializer(SubscriberSerializer):
    """A subscriber that was made just now, with its secret: it is not readable again."""

    secret = serializers.CharField(read_only=True)

    class Meta(SubscriberSerializer.Meta):
        fields = [*SubscriberSerializer.Meta.fields, "secret"]


class ReplaySerializer(serializers.Serializer[Any]):
    """What to tell again: the dead letters, or what is named here, or all that happened since."""

    deliveries = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1), required=False, max_length=1000
    )
    since = serializers.DateTimeField(required=False)


class ReplayedSerializer(serializers.Serializer[Any]):
    """How many events will be told again."""

    replayed = serializers.IntegerField()


class DeliverySerializer(serializers.ModelSerializer[Any]):
    """One event for one subscriber. ``id`` is the ``id`` of the event in the call."""

    kind = serializers.ChoiceField(choices=Kind.choices, read_only=True)

    class Meta:
        model = Delivery
        fields = [
            "id", "subscriber", "kind", "subject", "happened_at", "state", "attempts", "answered", "error", "tried_at",
            "ended_at",
        ]  # fmt: skip
        read_only_fields = fields


@extend_schema_view(create=extend_schema(responses={201: NewSubscriberSerializer}))
class SubscriberViewSet(RotatingSecretViewSet):
    """Who is told what happens."""

    queryset = Subscriber.objects.defer("secrets")
    serializer_class = SubscriberSerializer

    def perform_update(self, serializer: Any) -> None:
        """Enabling one that was given up forgets why."""
        super().perform_update(serializer)
        if serializer.validated_data.get("enabled"):
            subscribing.resume(subscriber=serializer.instance)
            serializer.instance.refresh_from_db()

    @extend_schema(request=None, responses={202: DeliverySerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Tell it that this is a test. What came of it is in the delivery."""
        made = subscribing.test(subscriber=self.get_object(), now=timezone.now())
        return Response(
            DeliverySerializer(made).data,
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": reverse("delivery-detail", [made.pk], request=request)},
        )

    @extend_schema(request=ReplaySerializer, responses=ReplayedSerializer)
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Tell dead letters again; or what is named, or all that happened since, delivered or not. At most 10,000."""
        subscriber: Subscriber = self.get_object()
        given = ReplaySerializer(data=request.data)
        given.is_valid(raise_exception=True)
        return Response({"replayed": subscribing.replay(subscriber=subscriber, **given.validated_data)})


class DeliveryFilter(django_filters.FilterSet):
    """Which deliveries to list."""

    subscriber = django_filters.NumberFilter(field_name="subscriber_id")
    state = django_filters.ChoiceFilter(choices=Delivery.State.choices, label="`dead`: the dead letters.")
    kind = django_filters.ChoiceFilter(choices=Kind.choices)
    subject = django_filters.NumberFilter()

    class Meta:
        model = Delivery
        fields: list[str] = []


class DeliveryViewSet(OwnedViewSet, mixins.RetrieveModelMixin, mixins.ListModelMixin):
    """What subscribers were told, newest first."""

    queryset = Delivery.objects.all()
    serializer_class = DeliverySerializer
    filterset_class = DeliveryFilter
