"""Vacuum settings for tables whose rows are updated three to five times each."""

from django.db import migrations


def tuned(table: str, fillfactor: int) -> migrations.RunSQL:
    return migrations.RunSQL(
        f"""ALTER TABLE {table} SET (fillfactor = {fillfactor}, autovacuum_vacuum_scale_factor = 0.02,
                autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0.02)""",
        f"""ALTER TABLE {table} RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
                autovacuum_analyze_scale_factor)""",
    )


class Migration(migrations.Migration):
    dependencies = [("messaging", "0001_initial"), ("devices", "0002_clock")]

    operations = [
        tuned("messaging_message", 90),
        tuned("messaging_stream", 60),
        tuned("messaging_attempt", 95),
    ]
