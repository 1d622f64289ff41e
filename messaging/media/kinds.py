"""What a file is, told by its bytes: names and headers are what somebody claims. Pure.

Signatures are those of the formats' own specifications: RFC 2083 (PNG), ISO/IEC 14496-12 (the ``ftyp`` box of MP4 and
its relatives), RFC 3533 (Ogg), ISO 32000 (PDF), APPNOTE.TXT (ZIP, which office documents are), MS-CFB (old ones).
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from messaging.media.problems import MediaRefused

Kind = Literal["image", "document", "video", "audio"]


@dataclass(frozen=True, slots=True)
class Sniffed:
    """A file's type, what it would be sent as if nobody says, and the ending its name should have."""

    mime_type: str
    kind: Kind
    ending: str


_OFFICE = "application/vnd.openxmlformats-officedocument."
_DOCX = Sniffed(f"{_OFFICE}wordprocessingml.document", "document", ".docx")
_XLSX = Sniffed(f"{_OFFICE}spreadsheetml.sheet", "document", ".xlsx")
_PPTX = Sniffed(f"{_OFFICE}presentationml.presentation", "document", ".pptx")
_ZIP = Sniffed("application/zip", "document", ".zip")
_OPEN_DOCUMENT = {
    f"application/vnd.oasis.opendocument.{name}": Sniffed(
        f"application/vnd.oasis.opendocument.{name}", "document", ending
    )
    for name, ending in (("text", ".odt"), ("spreadsheet", ".ods"), ("presentation", ".odp"))
}
_STARTS: tuple[tuple[bytes, Sniffed], ...] = (
    (b"\xff\xd8\xff", Sniffed("image/jpeg", "image", ".jpg")),
    (b"\x89PNG\r\n\x1a\n", Sniffed("image/png", "image", ".png")),
    (b"GIF87a", Sniffed("image/gif", "image", ".gif")),
    (b"GIF89a", Sniffed("image/gif", "image", ".gif")),
    (b"II*\x00", Sniffed("image/tiff", "image", ".tif")),
    (b"MM\x00*", Sniffed("image/tiff", "image", ".tif")),
    (b"%PDF-", Sniffed("application/pdf", "document", ".pdf")),
    (b"{\\rtf", Sniffed("application/rtf", "document", ".rtf")),
    (b"OggS", Sniffed("audio/ogg", "audio", ".ogg")),
    (b"ID3", Sniffed("audio/mpeg", "audio", ".mp3")),
    (b"#!AMR", Sniffed("audio/amr", "audio", ".amr")),
    (b"fLaC", Sniffed("audio/flac", "audio", ".flac")),
)
_OLD_OFFICE = {
    ".xls": Sniffed("application/vnd.ms-excel", "document", ".xls"),
    ".ppt": Sniffed("application/vnd.ms-powerpoint", "document", ".ppt"),
    ".doc": Sniffed("application/msword", "document", ".doc"),
}
_TEXT = {".csv": Sniffed("text/csv", "document", ".csv"), ".txt": Sniffed("text/plain", "document", ".txt")}
_PROGRAMS = (b"MZ", b"\x7fELF", b"#!/", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"dex\n")
_MARKUP = re.compile(rb"^(\xef\xbb\xbf)?\s*<(!doctype|html|svg|\?xml|script|head|body)", re.IGNORECASE)


def sniff(data: bytes, *, name: str = "") -> Sniffed:
    """The type of a whole file. ``name`` decides only between formats that look alike. Raises MediaRefused."""
    if not data:
        raise MediaRefused("empty_file", "The file is empty.")
    for start, found in _STARTS:
        if data.startswith(start):
            return found
    if data.startswith(_PROGRAMS) or _MARKUP.match(data[:512]):
        raise MediaRefused("type_refused", "Programs and web pages are not sent: make a PDF or a picture of it.")
    ending = PurePosixPath(name).suffix.lower()
    looks = _container(data, ending) or _text(data, ending)
    if looks is None:
        raise MediaRefused(
            "type_unknown",
            "This kind of file is not known: send pictures, PDF, office documents, CSV, MP4, MP3, Ogg and the like.",
        )
    return looks


def _container(data: bytes, ending: str) -> Sniffed | None:
    if data[:4] == b"RIFF":
        return {
            b"WEBP": Sniffed("image/webp", "image", ".webp"),
            b"WAVE": Sniffed("audio/wav", "audio", ".wav"),
            b"AVI ": Sniffed("video/x-msvideo", "video", ".avi"),
        }.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _brand(data[8:12])
    if data[:4] == b"\x1aE\xdf\xa3":
        webm = b"webm" in data[:64]
        return Sniffed("video/webm", "video", ".webm") if webm else Sniffed("video/x-matroska", "video", ".mkv")
    if data[:4] == b"PK\x03\x04":
        return _zipped(data)
    if data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        return _OLD_OFFICE.get(ending, _OLD_OFFICE[".doc"])
    if data[0] == 0xFF and len(data) > 1 and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 != 0x06:  # UTF-16 has FF FE
        layer = data[1] & 0x06
        return Sniffed("audio/aac", "audio", ".aac") if layer == 0 else Sniffed("audio/mpeg", "audio", ".mp3")
    if data[:2] == b"BM" and len(data) > 26 and int.from_bytes(data[2:6], "little") in {0, len(data)}:
        return Sniffed("image/bmp", "image", ".bmp")
    return None


def _brand(brand: bytes) -> Sniffed:
    """The files that begin with an ``ftyp`` box, by their major brand."""
    if brand in {b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"avif", b"avis"}:
        raise MediaRefused(
            "type_refused", "HEIC and AVIF pictures are not shown by every phone: save it as JPEG or PNG."
        )
    if brand[:3] in {b"M4A", b"M4B"}:
        return Sniffed("audio/mp4", "audio", ".m4a")
    if brand[:3] in {b"3gp", b"3g2"}:
        return Sniffed("video/3gpp", "video", ".3gp")
    if brand == b"qt  ":
        return Sniffed("video/quicktime", "video", ".mov")
    return Sniffed("video/mp4", "video", ".mp4")


def _zipped(data: bytes) -> Sniffed:
    """What is in the directory decides; nothing is unpacked but the one short name that OpenDocument begins with."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                return _OPEN_DOCUMENT.get(archive.read("mimetype").decode("ascii", "replace"), _ZIP)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError, EOFError):
        raise MediaRefused(
            "file_broken", "The file is broken: it ends too early, or its directory cannot be read."
        ) from None
    if "[Content_Types].xml" in names:
        for folder, found in (("word/", _DOCX), ("xl/", _XLSX), ("ppt/", _PPTX)):
            if any(name.startswith(folder) for name in names):
                return found
    if "AndroidManifest.xml" in names or "META-INF/MANIFEST.MF" in names:
        raise MediaRefused("type_refused", "Programs are not sent.")
    return _ZIP


def _text(data: bytes, ending: str) -> Sniffed | None:
    if b"\x00" in data:
        return None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return _TEXT.get(ending, _TEXT[".txt"])


_UNFIT_FOR_NAMES = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufdd0-\ufdef]")


def tidy_name(name: str, *, ending: str, most: int = 150) -> str:
    """A file's name as people may see it: one line, without signs that hide its ending, which is true."""
    last = _UNFIT_FOR_NAMES.sub("", name.replace("\\", "/").rsplit("/", 1)[-1])
    stem = " ".join(last.split()).strip(". ")
    known = {ending, ".jpeg" if ending == ".jpg" else ending, ".tiff" if ending == ".tif" else ending}
    suffix = PurePosixPath(stem).suffix
    if suffix.lower() in known:
        return f"{stem[: -len(suffix)][: most - len(suffix)]}{suffix}"
    if 1 < len(suffix) <= 5 and suffix[1:].isalnum():
        stem = stem[: -len(suffix)]
    return f"{(stem or 'file')[: most - len(ending)]}{ending}"
