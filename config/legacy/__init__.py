"""Moving over from system A, a Go broadcaster that keeps users, devices, leads, campaigns and sequences in PostgreSQL.

Its tables are read and never written. Each row that comes over is noted with what it became, in the same transaction,
so that an interrupted move goes on and a second one changes nothing. Whatever is not taken, or not as it stood there,
is a line of the report with table, id, field and remedy.
"""
