"""The one clock of the SQL statements, and room for HOT updates on the table that every send touches."""

from django.db import migrations

CLOCK = """
CREATE FUNCTION flotilla_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT now() + coalesce(nullif(current_setting('flotilla.clock_offset', true), ''), '0')::interval
$$;
COMMENT ON FUNCTION flotilla_now() IS 'now(), plus the interval in flotilla.clock_offset, which only tests set';
"""


class Migration(migrations.Migration):
    dependencies = [("devices", "0001_initial")]

    operations = [
        migrations.RunSQL(CLOCK, "DROP FUNCTION flotilla_now()"),
        migrations.RunSQL(
            """ALTER TABLE devices_device SET (
                   fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500)""",
            "ALTER TABLE devices_device RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)",
        ),
    ]
