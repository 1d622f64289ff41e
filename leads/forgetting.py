"""Taking a person out of what imports keep: the rows that were rejected, and the uploaded files.

A rejected row is recognised by the number, however it was written, or by the whole name. A file is not searched but
goes as a whole, as soon as nothing reads it any more (:mod:`leads.uploads`): what it held are leads by then.
"""

from __future__ import annotations

import sys
import unicodedata
from datetime import datetime
from functools import cache

import phonenumbers
from django.db import connection

from leads.models import LeadImport

# Digits of any script become ours, all else goes; the number without its country's code has to be among them.
_STRIP_ROWS = """
UPDATE leads_leadimportproblem p SET "values" = '{}', message = 'Erased.'
FROM leads_leadimport i
WHERE i.id = p.lead_import_id AND i.owner_id = %(owner)s
  AND EXISTS (SELECT FROM jsonb_each_text(p."values") cell
              WHERE regexp_replace(translate(cell.value, %(digits)s, %(plain)s), '[^0-9]', '', 'g') LIKE %(number)s
                 OR (%(name)s <> '' AND lower(btrim(cell.value)) = lower(%(name)s)))
"""


def forget_in_imports(*, owner_id: int, phone: str, name: str, now: datetime) -> int:
    """Empty the rejected rows of the owner's imports that speak of this person, and mark the owner's files as unwanted;
    returns how many rows there were. Call it in a transaction."""
    digits, plain = _digits()
    number = f"%{phonenumbers.parse(phone).national_number}%"
    with connection.cursor() as cursor:
        cursor.execute(
            _STRIP_ROWS,
            {"owner": owner_id, "digits": digits, "plain": plain, "number": number, "name": " ".join(name.split())},
        )
        rows = int(cursor.rowcount)
    LeadImport.objects.filter(owner_id=owner_id).exclude(file="").update(file_unwanted_at=now)
    return rows


@cache
def _digits() -> tuple[str, str]:
    """Every decimal digit of Unicode, and ours in the same order."""
    found = [character for character in map(chr, range(sys.maxunicode + 1)) if character.isdecimal()]
    return "".join(found), "".join(str(unicodedata.decimal(character)) for character in found)
