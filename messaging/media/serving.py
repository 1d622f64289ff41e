"""What stands behind a signed address. Whoever has it may read the file until it expires; nobody may run it here."""

from __future__ import annotations

from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.views.decorators.http import require_safe

from messaging.media.models import MediaFile
from messaging.media.signing import AddressExpired, NoSuchAddress, media_id_of


@require_safe
def serve(request: HttpRequest, token: str) -> HttpResponseBase:  # noqa: ARG001 - a view's signature
    """The file, as an attachment of its true type."""
    try:
        found = MediaFile.objects.get(pk=media_id_of(token, now=timezone.now()))
        body = found.path.open("rb")
    except AddressExpired:
        return HttpResponse("This address has expired.\n", status=410, content_type="text/plain")
    except (NoSuchAddress, MediaFile.DoesNotExist, OSError):
        return HttpResponse("There is no file at this address.\n", status=404, content_type="text/plain")
    response = FileResponse(body, as_attachment=True, filename=found.name, content_type=found.mime_type)
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["Cache-Control"] = "private, max-age=300"
    response["X-Robots-Tag"] = "noindex"
    return response
