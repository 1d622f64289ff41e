"""Django and Celery settings. Everything that differs between installations comes from the environment.

Variables are listed in README.md. Without ``DATABASE_URL`` and ``REDIS_URL`` the local stack's servers are used.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy

from config.broker import cache_at, celery_broker
from config.databases import DIRECT, databases
from config.lifelines import broker_options
from config.logs import log_to_stderr
from config.mail import MailProblem, mail_from
from config.reading import by_gateway, choice, keep_days, number, parsed, words
from config.secret_files import SecretProblem, read_secret_files, refuse_defaults
from config.stack.addresses import addresses, local_secrets
from config.theme import UNFOLD  # noqa: F401 - a setting
from leads.quiet import parse_caps, parse_quiet_hours, parse_zone

BASE_DIR = Path(__file__).resolve().parent.parent
PRODUCTION = os.environ.get("FLOTILLA_ENV", "local") == "production"
try:
    read_secret_files(os.environ)
    if PRODUCTION and sys.argv[1:2] != ["collectstatic"]:  # an image is built before it has keys
        refuse_defaults(os.environ)
except SecretProblem as problem:
    raise ImproperlyConfigured(str(problem)) from None


def _optional_secret(name: str) -> str:
    """A secret from the environment; the local stack makes its own."""
    return os.environ.get(name) or ("" if PRODUCTION else local_secrets().get(name, ""))


def _secret(name: str) -> str:
    """A secret from the environment; the local stack makes its own, production refuses to start without."""
    value = _optional_secret(name)
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. README.md, “Environment”, says what it is and how to make one.")
    return value


# -- Django ------------------------------------------------------------------------------------------------------------

DEBUG = False
SECRET_KEY = _secret("FLOTILLA_SECRET_KEY")
FIELD_KEYS = [key.strip() for key in _secret("FLOTILLA_FIELD_KEYS").split(",")]
SUPPRESSION_KEYS = [key.strip() for key in _secret("FLOTILLA_SUPPRESSION_KEYS").split(",") if key.strip()]
ALLOWED_HOSTS = words("FLOTILLA_HOSTS", "" if PRODUCTION else "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = words("FLOTILLA_ORIGINS")

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "rest_framework",
    "django_filters",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "devices",
    "leads",
    "messaging",
    "campaigns",
    "sequences",
    "config",
]

MIDDLEWARE = [
    "config.correlation.CorrelationMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "config.csp.ContentSecurityPolicyMiddleware",
    "config.body_limits.BodyLimitMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "config.login.SecondFactorMiddleware",
    "config.audit.AuditMiddleware",
    "config.zones.ZoneMiddleware",
    "config.api.throttles.RateHeaders",
    "config.api.idempotency.IdempotencyMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

FLOTILLA_LEASE_SECONDS = number("FLOTILLA_LEASE_SECONDS", 90)
# A process that froze in the middle of a transaction holds what it locked. Long before the first lease that waits for
# one of those rows ends, the server takes the transaction away from it.
FLOTILLA_IDLE_TRANSACTION_SECONDS = number("FLOTILLA_IDLE_TRANSACTION_SECONDS", FLOTILLA_LEASE_SECONDS / 3)

# A server, or a host that was its client, which says nothing for longer is taken for dead: config/lifelines.py.
FLOTILLA_SILENCE_SECONDS = int(number("FLOTILLA_SILENCE_SECONDS", 10))
if FLOTILLA_SILENCE_SECONDS < 1:
    raise ImproperlyConfigured(f"FLOTILLA_SILENCE_SECONDS must be 1 or more, not {FLOTILLA_SILENCE_SECONDS}.")

_addresses = addresses()
_direct_url = os.environ.get("FLOTILLA_DIRECT_DATABASE_URL", "")
DATABASES = databases(
    found=_addresses, direct_url=_direct_url, argv=sys.argv, idle_seconds=FLOTILLA_IDLE_TRANSACTION_SECONDS,
    silence_seconds=FLOTILLA_SILENCE_SECONDS,
)  # fmt: skip
FLOTILLA_POOLED = DIRECT in DATABASES
# For what outlives a transaction: locks of a session, temporary tables, server-side cursors, stored WhatsApp sessions.
FLOTILLA_OWN_CONNECTION = DIRECT if FLOTILLA_POOLED else "default"
REDIS_URL = _addresses.redis_url
CACHES = {"default": {**cache_at(REDIS_URL), "KEY_PREFIX": "cache"}}

# The first makes new ones; what the others made is made anew when its owner logs in.
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en"
TIME_ZONE = os.environ.get("FLOTILLA_TIME_ZONE", "UTC")
USE_I18N = True
FORMAT_MODULE_PATH = ["config.formats"]
USE_TZ = True
USE_THOUSAND_SEPARATOR = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOCAL_DIR = Path(os.environ.get("FLOTILLA_LOCAL", BASE_DIR / ".local"))
STATIC_URL = "static/"
# Collected in production; the local stack serves what the finders find.
STATIC_ROOT = Path(os.environ.get("FLOTILLA_STATIC_ROOT", BASE_DIR / "staticfiles")) if PRODUCTION else None
MEDIA_ROOT = Path(os.environ.get("FLOTILLA_MEDIA_ROOT", LOCAL_DIR / "media"))
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = not PRODUCTION
WHITENOISE_AUTOREFRESH = False
LOGIN_URL = reverse_lazy("admin:login")
LOGIN_REDIRECT_URL = reverse_lazy("admin:index")

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"  # "Strict" would log out who follows a link in a mail
SESSION_COOKIE_AGE = int(3600 * number("FLOTILLA_SESSION_HOURS", 336))
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = PRODUCTION
# Asked by machines inside, without the proxy that adds TLS; the proxies in deploy/ hide /metrics from outside.
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|readyz/web|metrics)$"]
SECURE_HSTS_SECONDS = int(number("FLOTILLA_HSTS_SECONDS", 31_536_000)) if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
if PRODUCTION:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# -- API ---------------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "config.api.token_auth.ScopedTokens",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["devices.permissions.RolePermission"],
    "DEFAULT_PAGINATION_CLASS": "config.api.pagination.NewestFirst",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "config.api.negotiation.Negotiation",
    "EXCEPTION_HANDLER": "config.api.problems.handle",
    "NUM_PROXIES": int(number("FLOTILLA_PROXIES", 0)) or None,
    "PAGE_SIZE": 50,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "DEFAULT_THROTTLE_CLASSES": ["config.api.throttles.UserThrottle"],
    "DEFAULT_THROTTLE_RATES": {"user": os.environ.get("FLOTILLA_API_RATE", "6000/min")},
}
REST_KNOX = {
    "TOKEN_TTL": timedelta(days=number("FLOTILLA_TOKEN_DAYS", 90)),
    "AUTH_HEADER_PREFIX": "Token",
}
KNOX_TOKEN_MODEL = "config.ApiToken"  # noqa: S105 - a model
SPECTACULAR_SETTINGS = {
    "DEFAULT_GENERATOR_CLASS": "config.api.schema.Generator",
    "TITLE": "Flotilla",
    "DESCRIPTION": "Outbound messaging over a fleet of devices. Errors are problems (RFC 9457) with a stable `code`.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
}

# -- E-mail ------------------------------------------------------------------------------------------------------------

try:
    _mail = mail_from(os.environ)
except MailProblem as problem:
    raise ImproperlyConfigured(str(problem)) from None
EMAIL_BACKEND = _mail.backend
EMAIL_HOST, EMAIL_PORT = _mail.host, _mail.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail.user, _mail.password
EMAIL_USE_TLS, EMAIL_USE_SSL = _mail.starttls, _mail.tls
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = os.environ.get("FLOTILLA_EMAIL_FROM") or "Flotilla <flotilla@localhost>"

# -- What Flotilla may be told -----------------------------------------------------------------------------------------

FLOTILLA_URL = os.environ.get("FLOTILLA_URL", "").rstrip("/")
FLOTILLA_BODY_MAX_BYTES = DATA_UPLOAD_MAX_MEMORY_SIZE = int(1_048_576 * number("FLOTILLA_BODY_MAX_MB", 5))
FLOTILLA_ADMINS_NEED_CODES = os.environ.get("FLOTILLA_ADMINS_NEED_CODES", "") == "1"
FLOTILLA_METRICS_TOKEN = _optional_secret("FLOTILLA_METRICS_TOKEN")
FLOTILLA_ALERT_EMAILS = words("FLOTILLA_ALERT_EMAILS")
FLOTILLA_DIGEST_SECONDS = 60 * number("FLOTILLA_DIGEST_MINUTES", 60)
FLOTILLA_DEFAULT_REGION = os.environ.get("FLOTILLA_DEFAULT_REGION", "MY")
FLOTILLA_SHARDS = int(number("FLOTILLA_SHARDS", 4))
FLOTILLA_SESSION_SHARDS = int(number("FLOTILLA_SESSION_SHARDS", 16))
FLOTILLA_SESSION_LEASE_SECONDS = number("FLOTILLA_SESSION_LEASE_SECONDS", 30)
FLOTILLA_SESSION_OPEN_SECONDS = number("FLOTILLA_SESSION_OPEN_SECONDS", 30)
FLOTILLA_SESSION_DRAIN_SECONDS = number("FLOTILLA_SESSION_DRAIN_SECONDS", 10)
FLOTILLA_SESSION_LINGER_SECONDS = 60 * number("FLOTILLA_SESSION_LINGER_MINUTES", 60)
FLOTILLA_SESSIONS_PER_HOST = int(number("FLOTILLA_SESSIONS_PER_HOST", 500))
FLOTILLA_SESSION_HOST_CONNECTS = int(number("FLOTILLA_SESSION_HOST_CONNECTS", 2000))
FLOTILLA_SESSION_HOST_MB = int(number("FLOTILLA_SESSION_HOST_MB", 2000))
FLOTILLA_SIMULATED_SESSIONS = os.environ.get("FLOTILLA_SIMULATED_SESSIONS", "") == "1"
FLOTILLA_RETRY_MINUTES = [float(part) for part in words("FLOTILLA_RETRY_MINUTES", "5,15,30,60,120")]
FLOTILLA_REPUBLISH_SECONDS = number("FLOTILLA_REPUBLISH_SECONDS", 15)
FLOTILLA_STUCK_QUEUED_SECONDS = 60 * number("FLOTILLA_STUCK_QUEUED_MINUTES", 5)
FLOTILLA_STUCK_QUEUED_POLICY = choice("FLOTILLA_STUCK_QUEUED_POLICY", "pending", "failed")
FLOTILLA_FAILOVER_AFTER_SECONDS = 60 * number("FLOTILLA_FAILOVER_AFTER_MINUTES", 10)
FLOTILLA_BAN_WINDOW_SECONDS = 60 * number("FLOTILLA_BAN_WINDOW_MINUTES", 60)
FLOTILLA_ARCHIVE_FAILED_DAYS = number("FLOTILLA_ARCHIVE_FAILED_DAYS", 30)
# What is removed once it is old; without a number it stays (messaging/retention.py)
FLOTILLA_KEEP_MESSAGE_DAYS = keep_days("FLOTILLA_KEEP_MESSAGE_DAYS")
FLOTILLA_KEEP_TEXT_DAYS = keep_days("FLOTILLA_KEEP_TEXT_DAYS")
FLOTILLA_KEEP_REPLY_DAYS = keep_days("FLOTILLA_KEEP_REPLY_DAYS")
FLOTILLA_KEEP_CHANGE_DAYS = keep_days("FLOTILLA_KEEP_CHANGE_DAYS")
FLOTILLA_MESSAGE_EXPIRY_DAYS = number("FLOTILLA_MESSAGE_EXPIRY_DAYS", 7)
FLOTILLA_IMPORT_FILE_DAYS = number("FLOTILLA_IMPORT_FILE_DAYS", 7)
FLOTILLA_MISSED_AFTER_SECONDS = 60 * number("FLOTILLA_MISSED_AFTER_MINUTES", 15)
FLOTILLA_SLOW_CALL_SECONDS = number("FLOTILLA_SLOW_CALL_SECONDS", 10)
FLOTILLA_SLOW_CALLS = int(number("FLOTILLA_SLOW_CALLS", 8))
FLOTILLA_RECONNECT_MINUTES = [1, 2, 3, 4, 5]
FLOTILLA_PREPARE = os.environ.get("FLOTILLA_PREPARE", "1") != "0" and not FLOTILLA_POOLED
FLOTILLA_POOL_SIZE = int(number("FLOTILLA_POOL_SIZE", 12))
# What becomes of messages whose outcome nobody knows: "hold", "hold,simulator=resend,wablas=fail"
FLOTILLA_UNKNOWN_POLICY = dict(by_gateway("FLOTILLA_UNKNOWN_POLICY", os.environ.get("FLOTILLA_UNKNOWN_POLICY", "")))
if wrong := set(FLOTILLA_UNKNOWN_POLICY.values()) - {"hold", "resend", "fail"}:
    raise ImproperlyConfigured(f"FLOTILLA_UNKNOWN_POLICY knows hold, resend and fail, not {', '.join(sorted(wrong))}.")
FLOTILLA_UNKNOWN_CLOSE_HOURS = number("FLOTILLA_UNKNOWN_CLOSE_HOURS", 24)
FLOTILLA_LOOK_UP_GRACE_SECONDS = number("FLOTILLA_LOOK_UP_GRACE_SECONDS", 300)
FLOTILLA_RECEIPT_KEEP_HOURS = number("FLOTILLA_RECEIPT_KEEP_HOURS", 48)
# Secrets that sign webhooks, by gateway kind; while one is changed, name the new one and then the old one.
FLOTILLA_WEBHOOK_SECRETS: dict[str, tuple[str, ...]] = {}
for _kind, _value in by_gateway("FLOTILLA_WEBHOOK_SECRETS", _optional_secret("FLOTILLA_WEBHOOK_SECRETS")):
    if not _kind:
        raise ImproperlyConfigured("FLOTILLA_WEBHOOK_SECRETS: every entry must be written as gateway=secret.")
    FLOTILLA_WEBHOOK_SECRETS[_kind] = (*FLOTILLA_WEBHOOK_SECRETS.get(_kind, ()), _value)
FLOTILLA_HOOK_KEY_KEEP_HOURS = number("FLOTILLA_HOOK_KEY_KEEP_HOURS", 24)
# How leads are treated: leads/quiet.py and leads/suppression.py. The local stack shows itself at any hour.
FLOTILLA_QUIET_HOURS = parsed("FLOTILLA_QUIET_HOURS", "21:00-08:00" if PRODUCTION else "", parse_quiet_hours)
FLOTILLA_QUIET_HOURS_SINGLE = parsed("FLOTILLA_QUIET_HOURS_SINGLE", "", parse_quiet_hours)
FLOTILLA_LEAD_TIME_ZONE = parsed("FLOTILLA_LEAD_TIME_ZONE", TIME_ZONE, parse_zone)
FLOTILLA_LEAD_CAPS = parsed("FLOTILLA_LEAD_CAPS", "", parse_caps)
FLOTILLA_OPT_OUT_REPLY = os.environ.get("FLOTILLA_OPT_OUT_REPLY", "").strip()
FLOTILLA_SUPPRESSION_SCOPE = os.environ.get("FLOTILLA_SUPPRESSION_SCOPE", "owner")
if FLOTILLA_SUPPRESSION_SCOPE not in {"owner", "installation"}:
    raise ImproperlyConfigured(
        f"FLOTILLA_SUPPRESSION_SCOPE must be owner or installation, not “{FLOTILLA_SUPPRESSION_SCOPE}”."
    )
# Attachments: messaging/media. Private addresses are fetched from only if they are named, as "127.0.0.1:8030".
FLOTILLA_MEDIA_URL_HOURS = number("FLOTILLA_MEDIA_URL_HOURS", 24)
FLOTILLA_MEDIA_MAX_BYTES = int(1_048_576 * number("FLOTILLA_MEDIA_MAX_MB", 100))
FLOTILLA_MEDIA_FETCH_SECONDS = number("FLOTILLA_MEDIA_FETCH_SECONDS", 20)
FLOTILLA_MEDIA_FETCH_ALLOW = words("FLOTILLA_MEDIA_FETCH_ALLOW")
# Outgoing webhooks: messaging/outgoing. Private addresses are called only if they are named, as "127.0.0.1:8030".
FLOTILLA_OUTGOING_ALLOW = words("FLOTILLA_OUTGOING_ALLOW")
FLOTILLA_OUTGOING_GIVE_UP_HOURS = number("FLOTILLA_OUTGOING_GIVE_UP_HOURS", 72)
FLOTILLA_OUTGOING_KEEP_DAYS = number("FLOTILLA_OUTGOING_KEEP_DAYS", 30)
FLOTILLA_IMAGE_BYTES = int(1024 * number("FLOTILLA_IMAGE_KB", 350))
FLOTILLA_IMAGE_PIXELS = int(1_000_000 * number("FLOTILLA_IMAGE_MEGAPIXELS", 60))
# Where a gateway kind is reached unless a device says otherwise: "simulator=http://127.0.0.1:9000,wablas=https://…"
FLOTILLA_GATEWAY_URLS = dict(pair.split("=", 1) for pair in words("FLOTILLA_GATEWAY_URLS") if "=" in pair)

# -- Celery ------------------------------------------------------------------------------------------------------------

_broker = celery_broker(REDIS_URL)
CELERY_BROKER_URL, CELERY_BROKER_TRANSPORT = _broker.url, _broker.transport
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "priority_steps": [0],
    "visibility_timeout": 60,
    "unacked_restore_throttle": 1,  # look for what a dead worker held every ten seconds, not every hundred
    "socket_timeout": 20,  # above the BRPOP timeout
    "socket_connect_timeout": 5,
    **broker_options(seconds=FLOTILLA_SILENCE_SECONDS),
    **_broker.options,
}
CELERY_TASK_DEFAULT_QUEUE = "control"
CELERY_TASK_CREATE_MISSING_QUEUES = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_DISABLE_PREFETCH = True
CELERY_WORKER_ENABLE_REMOTE_CONTROL = True
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1

# -- Logs --------------------------------------------------------------------------------------------------------------

LOGGING = log_to_stderr(level=os.environ.get("FLOTILLA_LOG_LEVEL", "INFO"), json=PRODUCTION)
