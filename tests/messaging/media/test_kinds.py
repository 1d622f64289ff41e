"""What a file is, by its bytes; and what it is called."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.media.kinds import sniff, tidy_name
from messaging.media.problems import MediaRefused


def zipped(**files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("Content_Types", "[Content_Types].xml"), text)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "mime_type", "kind"),
    [
        (b"%PDF-1.7\n", "a.exe", "application/pdf", "document"),
        (b"\xff\xd8\xff\xe0", "a.pdf", "image/jpeg", "image"),
        (b"\x00\x00\x00\x18ftypmp42", "x", "video/mp4", "video"),
        (b"\x00\x00\x00\x18ftypM4A ", "x", "audio/mp4", "audio"),
        (b"\x00\x00\x00\x18ftyp3gp5", "x", "video/3gpp", "video"),
        (b"\x00\x00\x00\x14ftypqt  ", "x", "video/quicktime", "video"),
        (b"OggS\x00", "x", "audio/ogg", "audio"),
        (b"ID3\x04", "x", "audio/mpeg", "audio"),
        (b"\xff\xfb\x90\x00", "x", "audio/mpeg", "audio"),
        (b"\xff\xf1\x50\x80", "x", "audio/aac", "audio"),
        (b"RIFF\x00\x00\x00\x00WAVE", "x", "audio/wav", "audio"),
        (b"RIFF\x00\x00\x00\x00WEBP", "x", "image/webp", "image"),
        (b"\x1aE\xdf\xa3\x9fB\x86webm", "x", "video/webm", "video"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a.xls", "application/vnd.ms-excel", "document"),
        (b"name,phone\n", "a.csv", "text/csv", "document"),
        ("Grüße".encode(), "a.jpg", "text/plain", "document"),
        (zipped(Content_Types="", word__document="x"), "a", "wordprocessingml.document", "document"),
        (zipped(Content_Types="", xl__workbook="x"), "a", "spreadsheetml.sheet", "document"),
        (zipped(mimetype="application/vnd.oasis.opendocument.text"), "a", "opendocument.text", "document"),
        (zipped(anything="x"), "a.docx", "application/zip", "document"),
    ],
)
def test_bytes_decide(data: bytes, name: str, mime_type: str, kind: str) -> None:
    found = sniff(data, name=name)
    assert found.mime_type.endswith(mime_type)
    assert found.kind == kind


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ\x90\x00",
        b"\x7fELF\x02",
        b"#!/bin/sh\n",
        b" <!DOCTYPE html><script>",
        b"\xef\xbb\xbf<svg onload=alert(1)>",
        b"<?xml version='1.0'?><svg/>",
        b"\x00\x00\x00\x18ftypheic",
        b"PK\x03\x04 broken",
        zipped(**{"AndroidManifest.xml": "x"}),
        b"\x00\x01\x02\x03",
        b"\xff\xfeh\x00i\x00",
    ],
)
def test_what_is_not_sent(data: bytes) -> None:
    with pytest.raises(MediaRefused):
        sniff(data, name="holiday.jpg")


@pytest.mark.parametrize(
    ("name", "ending", "tidy"),
    [
        ("report.pdf", ".pdf", "report.pdf"),
        ("../../etc/passwd", ".txt", "passwd.txt"),
        ("C:\\Users\\me\\Bericht.PDF", ".pdf", "Bericht.PDF"),
        ("invoice\u202egpj.exe", ".jpg", "invoicegpj.jpg"),
        ("photo.jpeg", ".jpg", "photo.jpeg"),
        ("", ".pdf", "file.pdf"),
        ("a\r\nb: c.png", ".jpg", "ab c.jpg"),
    ],
)
def test_names_are_made_true_and_harmless(name: str, ending: str, tidy: str) -> None:
    assert tidy_name(name, ending=ending) == tidy


@given(st.text(max_size=300))
def test_any_name_becomes_one(name: str) -> None:
    found = tidy_name(name, ending=".pdf")
    assert 5 <= len(found) <= 150
    assert found.lower().endswith(".pdf")
    assert not set(found) & set("/\\\r\n\x00")


@given(st.binary(max_size=200))
def test_any_bytes_are_known_or_refused(data: bytes) -> None:
    with suppress(MediaRefused):
        assert sniff(data).mime_type
