"""Messages over REST: what went out and how, and sending a single one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.conf import settings
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from devices.api_base import OwnedRelation, OwnedViewSet
from devices.models import Device
from leads.api_fields import CsvRenderer, csv_response
from leads.models import Lead
from leads.phones import PhoneProblem, parse_phone
from messaging import failures, groups, retrying, services, settling
from messaging.content.api_fields import ContentField
from messaging.content.preview import preview
from messaging.content.wording import MAX_TEXT
from messaging.device_report_csv import recipient_lines
from messaging.dispatch import holding
from messaging.models import MESSAGE_STATES, Attempt, Message
from messaging.states import REPORT_WORDS, State
from messaging.why import why_not_sent

WORDS = sorted(set(REPORT_WORDS.values()))


@extend_schema_field(serializers.ChoiceField(choices=MESSAGE_STATES), component_name="MessageState")
class MessageStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


class AttemptSerializer(serializers.ModelSerializer[Attempt]):
    """One call to a gateway."""

    class Meta:
        model = Attempt
        fields = [
            "id", "device", "round", "number", "reference", "text", "started_at", "finished_at", "outcome",
            "external_id", "error_code", "error_text",
        ]  # fmt: skip
        read_only_fields = fields


class MessageSerializer(serializers.ModelSerializer[Message]):
    """A message as lists show it."""

    state = MessageStateField(choices=MESSAGE_STATES, read_only=True)
    report_status = serializers.SerializerMethodField(help_text="The state in the words of the reports.")
    attempt_count = serializers.IntegerField(source="attempts", read_only=True, help_text="Attempts of this round.")

    class Meta:
        model = Message
        fields = [
            "id", "uid", "batch", "device", "lead", "phone", "state", "report_status", "due_at", "queued_at", "sent_at",
            "delivered_at", "read_at", "presumed_at", "failed_at", "archived_at", "round", "attempt_count",
            "external_id", "error_code", "error_text", "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField(choices=WORDS))
    def get_report_status(self, message: Message) -> str:
        """Pending, Queued, Sent, Failed or Unknown."""
        return REPORT_WORDS[State(message.state)]


class WhySerializer(serializers.Serializer[Any]):
    """What stands in a message's way, and until when (null: until somebody does something)."""

    code = serializers.CharField()
    text = serializers.CharField()
    until = serializers.DateTimeField(allow_null=True)


class MessageDetailSerializer(MessageSerializer):
    """A message with its content and everything that was tried."""

    content = serializers.DictField(source="batch.content", read_only=True, help_text="Before variables are filled in.")
    why = serializers.SerializerMethodField(help_text="Why it has not been sent yet; null once it was.")
    attempts = AttemptSerializer(source="attempt_set", many=True, read_only=True)

    class Meta(MessageSerializer.Meta):
        fields = [*MessageSerializer.Meta.fields, "why", "content", "attempts"]
        read_only_fields = fields

    @extend_schema_field(WhySerializer(allow_null=True))
    def get_why(self, message: Message) -> dict[str, Any] | None:
        """The first thing in its way."""
        why = why_not_sent(message, now=timezone.now())
        return None if why is None else dict(WhySerializer(why).data)


class SendSerializer(serializers.Serializer[Any]):
    """One message to one person: name a lead, or a phone number (which becomes a lead)."""

    phone = serializers.CharField(required=False, max_length=40, help_text="In any common form.")
    lead = OwnedRelation(queryset=Lead.objects.all(), required=False)
    text = serializers.CharField(
        required=False,
        trim_whitespace=False,
        max_length=4 * MAX_TEXT,
        help_text="Variables as {{ name }}, with {{ name or 'friend' }}.",
    )
    content = ContentField(required=False, help_text="Instead of text, where there is more to it.")
    device = OwnedRelation(
        queryset=Device.objects.all(), required=False, allow_null=True, default=None,
        help_text="Empty: the lead's own device, else any connected one.",
    )  # fmt: skip

    def validate_phone(self, value: str) -> str:
        """The number in its one form."""
        try:
            return parse_phone(value, region=settings.FLOTILLA_DEFAULT_REGION)
        except PhoneProblem as problem:
            raise serializers.ValidationError(problem.text, problem.code) from None

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One recipient, named in one way."""
        if ("text" in attrs) == ("content" in attrs):
            code = "one_content" if "text" in attrs else "required"
            raise serializers.ValidationError({"text": "Give a text, or a content, and not both."}, code)
        if ("phone" in attrs) == ("lead" in attrs):
            raise serializers.ValidationError({"phone": "Name either a lead or a phone number."}, "one_recipient")
        return attrs


class RetryOneSerializer(serializers.Serializer[Any]):
    """Whether to try even what the gateway refused for good, or is archived."""

    insist = serializers.BooleanField(default=False)


class RetrySerializer(serializers.Serializer[Any]):
    """Which failed messages to send again."""

    messages = serializers.ListField(child=serializers.IntegerField(min_value=1), required=False, max_length=10_000)
    batch = serializers.IntegerField(required=False, min_value=1, help_text="All failed messages of this batch.")
    all = serializers.BooleanField(
        default=False, help_text="Everything that failed and is not archived: the newest 10,000 of it."
    )
    insist = serializers.BooleanField(
        default=False, help_text="Also what the gateway refused for good, and what is archived."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Nothing named would mean everything."""
        if not {"messages", "batch"} & set(attrs) and not attrs["all"]:
            raise serializers.ValidationError({"messages": "Name messages, or a batch, or say “all”."}, "required")
        return attrs


class RetriedSerializer(serializers.Serializer[Any]):
    """What a retry did."""

    retried = serializers.IntegerField()
    left_alone = serializers.DictField(child=serializers.IntegerField(), help_text="How many, by reason.")


class SettleSerializer(serializers.Serializer[Any]):
    """Which unknown outcomes to settle, and how. Several conditions narrow one another."""

    verdict = serializers.ChoiceField(
        choices=["sent", "resend", "failed"],
        help_text="They count as sent; go out again, at the risk that some arrive twice; count as failed.",
    )
    messages = serializers.ListField(child=serializers.IntegerField(min_value=1), required=False, max_length=10_000)
    batch = serializers.IntegerField(required=False, min_value=1)
    device = serializers.IntegerField(required=False, min_value=1)
    gateway = serializers.CharField(required=False, max_length=32, help_text="A kind of gateway, as simulator.")
    older_than_hours = serializers.FloatField(
        required=False, min_value=0, max_value=100_000, help_text="Only those whose last attempt began before that."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Nothing named would mean everything."""
        if set(attrs) <= {"verdict"}:
            raise serializers.ValidationError(
                {"messages": "Name messages, a batch, a device, a gateway or an age."}, "required"
            )
        return attrs


class SettledSerializer(serializers.Serializer[Any]):
    """What settling did."""

    settled = serializers.IntegerField()
    left_alone = serializers.DictField(child=serializers.IntegerField(), help_text="How many, by reason.")
    more = serializers.BooleanField(help_text="Whether the conditions fit more than one call settles: call again.")


class PreviewRequestSerializer(serializers.Serializer[Any]):
    """A content, and for whom."""

    content = ContentField()
    lead = OwnedRelation(
        queryset=Lead.objects.all(), required=False, allow_null=True, default=None,
        help_text="Empty: somebody of whom nothing is known.",
    )  # fmt: skip
    seed = serializers.IntegerField(
        required=False, default=0, min_value=0, max_value=2**31, help_text="Choices fall otherwise with another one."
    )


class PreviewSerializer(serializers.Serializer[Any]):
    """What would be sent, or why this lead would get nothing."""

    type = serializers.CharField(source="prepared.type", default=None, allow_null=True)
    text = serializers.CharField(source="prepared.text", default=None, allow_null=True)
    media = serializers.IntegerField(source="prepared.media", default=None, allow_null=True)
    parameters = serializers.ListField(
        child=serializers.CharField(), source="prepared.template.parameters", default=None, allow_null=True
    )
    problem = serializers.CharField(allow_blank=True)
    held = serializers.BooleanField(help_text="It would wait for the value that is missing.")
    varies = serializers.BooleanField(help_text="It holds choices, which fall otherwise from message to message.")


class MessageFilter(django_filters.FilterSet):
    """Which messages to list."""

    state = django_filters.MultipleChoiceFilter(choices=MESSAGE_STATES, label="May be given several times.")
    lead = django_filters.NumberFilter(field_name="lead_id")
    device = django_filters.NumberFilter(field_name="device_id")
    batch = django_filters.NumberFilter(field_name="batch_id")
    of = django_filters.CharFilter(
        method="of_group",
        label="Those of a run (`run-7`), who answered it (`run_replied-7`), of a sequence (`sequence-5`) or of one of "
        "its steps by its key (`sequence-5-2`).",
    )
    archived = django_filters.BooleanFilter(
        field_name="archived_at", lookup_expr="isnull", exclude=True, label="Those that failed long ago, or the others."
    )

    class Meta:
        model = Message
        fields: list[str] = []

    def of_group(self, queryset: QuerySet[Message], name: str, value: str) -> QuerySet[Message]:
        """As reports name what they are about."""
        group = groups.find(value, user=self.request.user)
        if group is None:
            text = "It does not exist, or you may not see it: name it as run-7, run_replied-7, sequence-5."
            raise serializers.ValidationError({name: text}, "does_not_exist")
        return group.narrow(queryset)


class MessageViewSet(OwnedViewSet, mixins.RetrieveModelMixin, mixins.ListModelMixin):
    """Outbound messages, newest first."""

    queryset = Message.objects.all()
    filterset_class = MessageFilter

    def get_serializer_class(self) -> type[MessageSerializer]:
        """Lists leave out what costs a query each."""
        return MessageSerializer if self.action == "list" else MessageDetailSerializer

    def filter_queryset(self, queryset: Any) -> Any:
        """Lists leave out the archive unless it is asked for; by its id a message is always found."""
        found = super().filter_queryset(queryset)
        hidden = self.action == "list" and not self.request.query_params.get("archived")
        return found.filter(archived_at__isnull=True) if hidden else found

    def get_queryset(self) -> Any:
        """A message with its attempts is a handful of queries, whatever their number."""
        found = super().get_queryset()
        return (
            found
            if self.action == "list"
            else found.select_related("batch", "device", "lead").prefetch_related("attempt_set")
        )

    @extend_schema(responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(detail=False, methods=["get"], pagination_class=None, renderer_classes=[JSONRenderer, CsvRenderer])
    def export(self, request: Request) -> StreamingHttpResponse:  # noqa: ARG002 - DRF's signature
        """The messages that match the filters with the leads behind them, oldest first, as a CSV; what is archived is
        among them unless `archived=false`."""
        found = self.filter_queryset(Message.objects.visible_to(self.request.user))
        return csv_response(recipient_lines(found), filename="messages.csv")

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Delete a failed message and its attempts. Anything that has not failed stays."""
        failures.delete(message_id=self.get_object().pk, by=self.user)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=RetrySerializer, responses=RetriedSerializer)
    @action(detail=False, methods=["post"])
    def retry(self, request: Request) -> Response:
        """Give failed messages a new round: those named, all of a batch, or all. Refusals for good are left alone.

        What is held because its lead lacks a value is tried again too.
        """
        given = RetrySerializer(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = given.validated_data
        mine = Message.objects.changeable_by(request.user)
        if "batch" in wanted:
            mine = mine.filter(batch_id=wanted["batch"])
        if "messages" in wanted:
            mine = mine.filter(pk__in=wanted["messages"])
        if wanted["all"]:
            mine = mine.filter(archived_at__isnull=True)
        return self._retried(mine, insist=wanted["insist"])

    @extend_schema(operation_id="messages_retry_one", request=RetryOneSerializer, responses=RetriedSerializer)
    @action(detail=True, methods=["post"], url_path="retry")
    def retry_one(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Give one failed message a new round; `left_alone` says why not."""
        message = self.get_object()
        given = RetryOneSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        return self._retried(Message.objects.filter(pk=message.pk), insist=given.validated_data["insist"])

    def _retried(self, mine: Any, *, insist: bool) -> Response:
        """What failed gets a new round, what is held for a value another look."""
        failed = mine.filter(state=State.FAILED).order_by("-pk").values_list("pk", flat=True)[: retrying.LIMIT]
        done = retrying.retry_failed(message_ids=failed, now=timezone.now(), insist=insist)
        held = mine.filter(state=State.PENDING, error_code=holding.MISSING).values_list("pk", flat=True)
        freed = holding.try_again(message_ids=held[: holding.LIMIT])
        return Response(RetriedSerializer(replace(done, retried=done.retried + freed)).data)

    @extend_schema(request=PreviewRequestSerializer, responses=PreviewSerializer)
    @action(detail=False, methods=["post"])
    def preview(self, request: Request) -> Response:
        """What one lead would get. Nothing is stored or sent."""
        given = PreviewRequestSerializer(data=request.data, context=self.get_serializer_context())
        given.is_valid(raise_exception=True)
        found = preview(now=timezone.now(), **given.validated_data)
        return Response(PreviewSerializer(found).data)

    @extend_schema(request=SettleSerializer, responses=SettledSerializer)
    @action(detail=False, methods=["post"])
    def settle(self, request: Request) -> Response:
        """Say what became of messages whose outcome is unknown. Who said so is kept with each message."""
        given = SettleSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = dict(given.validated_data)
        verdict, ids = wanted.pop("verdict"), wanted.pop("messages", None)
        now = timezone.now()
        found: QuerySet[Message] = Message.objects.changeable_by(request.user)
        if ids is not None:
            found = found.filter(pk__in=ids)
        if wanted or ids is None:
            found = settling.unknowns(found, now=now, **wanted)
        chosen = found.values_list("pk", flat=True)[: settling.LIMIT + 1]
        done = settling.settle(message_ids=chosen, verdict=verdict, user=self.user, now=now)
        return Response(SettledSerializer(done).data)

    @extend_schema(request=SendSerializer, responses={202: MessageDetailSerializer})
    def create(self, request: Request) -> Response:
        """Send one message, ahead of everything in bulk. Accepted means: stored, and sent as soon as its device can."""
        given = SendSerializer(data=request.data, context=self.get_serializer_context())
        given.is_valid(raise_exception=True)
        message = services.send_single(owner=self.user, now=timezone.now(), **given.validated_data)
        message.refresh_from_db()  # columns the database fills in
        return Response(
            self.get_serializer(message).data,
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": reverse("message-detail", [message.pk], request=request)},
        )
