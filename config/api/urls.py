"""Addresses of the API."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.urls import include, path
from django.views.decorators.csrf import ensure_csrf_cookie
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import SimpleRouter

from campaigns.api import CampaignViewSet, RunViewSet
from config.api.audit import AuditViewSet
from config.api.deleting import DeviceEndpoint, LeadEndpoint, MediaEndpoint
from config.api.health import HealthView, StatsView
from config.api.merge import MergeView
from config.api.schema import Generator
from config.api.tokens import LogoutView, TokenView, TokenViewSet
from config.api.users import UserViewSet
from devices.api import PoolViewSet
from devices.api_batch import DeviceBatchView
from devices.api_bulk import DevicesBulkView
from devices.api_shares import SharesView, ShareView
from devices.api_status_link import StatusLinkView
from devices.api_webhook import WebhookView
from leads.api_batch import LeadBatchView
from leads.api_bulk import BulkView
from leads.api_consent import WaiversView, WaiverView
from leads.api_imports import LeadImportViewSet
from leads.api_segments import SegmentViewSet
from leads.api_sources import LeadSourceViewSet
from messaging.api import MessageViewSet
from messaging.api_batches import BatchViewSet
from messaging.api_days import DaysView
from messaging.api_disclose import DiscloseView
from messaging.api_erase import EraseView
from messaging.api_halt import HaltView
from messaging.api_history import HistoryView
from messaging.api_operations import FailedViewSet, QueuesView, WorkersView
from messaging.api_outgoing import DeliveryViewSet, SubscriberViewSet
from messaging.api_queues import ClearQueueView, ExpireQueueView
from messaging.api_replies import ReplyViewSet
from messaging.api_transfer import TransferView
from sequences.api import EnrolmentViewSet, SequenceViewSet

router = SimpleRouter(trailing_slash=False)
router.register("devices", DeviceEndpoint)
router.register("audit", AuditViewSet, basename="audit")
router.register("pools", PoolViewSet)
router.register("leads/imports", LeadImportViewSet, basename="lead-import")
router.register("leads/sources", LeadSourceViewSet, basename="lead-source")
router.register("leads", LeadEndpoint)
router.register("segments", SegmentViewSet)
router.register("campaigns", CampaignViewSet)
router.register("runs", RunViewSet)
router.register("messages", MessageViewSet)
router.register("batches", BatchViewSet)
router.register("replies", ReplyViewSet, basename="reply")
router.register("media", MediaEndpoint, basename="media")
router.register("subscribers", SubscriberViewSet)
router.register("deliveries", DeliveryViewSet)
router.register("sequences", SequenceViewSet)
router.register("enrolments", EnrolmentViewSet)

v1 = [
    path("auth/token", TokenView.as_view(), name="token"),
    path("auth/logout", LogoutView.as_view(), name="logout"),
    path("tokens", TokenViewSet.as_view({"get": "list", "post": "create"}), name="tokens"),
    path("tokens/<uuid:pk>", TokenViewSet.as_view({"get": "retrieve", "delete": "destroy"}), name="token-detail"),
    path("users", UserViewSet.as_view({"get": "list", "post": "create"}), name="users"),
    path("users/<int:pk>", UserViewSet.as_view({"get": "retrieve", "patch": "partial_update"}), name="user-detail"),
    path("devices/<int:pk>/webhook", WebhookView.as_view(), name="device-webhook"),
    path("devices/<int:pk>/status-link", StatusLinkView.as_view(), name="device-status-link"),
    path("devices/<int:pk>/shares", SharesView.as_view(), name="device-shares"),
    path("devices/<int:pk>/shares/<int:user>", ShareView.as_view(), name="device-share"),
    path("health", HealthView.as_view(), name="health"),
    path("stats", StatsView.as_view(), name="stats"),
    path("stats/days", DaysView.as_view(), name="stats-days"),
    path("workers", WorkersView.as_view(), name="workers"),
    path("queues", QueuesView.as_view(), name="queues"),
    path("queues/<int:pk>/clear", ClearQueueView.as_view(), name="queue-clear"),
    path("queues/<int:pk>/expire", ExpireQueueView.as_view(), name="queue-expire"),
    path("failed", FailedViewSet.as_view({"get": "list"}), name="failed"),
    path("devices/bulk", DevicesBulkView.as_view(), name="devices-bulk"),
    path("devices/batch", DeviceBatchView.as_view(), name="devices-batch"),
    path("leads/batch", LeadBatchView.as_view(), name="leads-batch"),
    path("halt", HaltView.as_view(), name="halt"),
    path("leads/bulk", BulkView.as_view(), name="leads-bulk"),
    path("leads/transfer", TransferView.as_view(), name="leads-transfer"),
    path("leads/<int:pk>/merge", MergeView.as_view(), name="lead-merge"),
    path("leads/<int:pk>/history", HistoryView.as_view(), name="lead-history"),
    path("leads/<int:pk>/export", DiscloseView.as_view(), name="lead-export"),
    path("leads/<int:pk>/erase", EraseView.as_view(), name="lead-erase"),
    path("consent/waivers", WaiversView.as_view(), name="consent-waivers"),
    path("consent/waivers/<int:pk>", WaiverView.as_view(), name="consent-waiver"),
    path("schema", SpectacularAPIView.as_view(generator_class=Generator), name="schema"),
    *router.urls,
]

# its try-out buttons act in the reader's session, which needs the CSRF cookie
docs = ensure_csrf_cookie(login_required(SpectacularSwaggerSplitView.as_view(url_name="schema")))

urlpatterns = [path("v1/", include(v1)), path("docs", docs, name="docs")]
