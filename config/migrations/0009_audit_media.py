"""Who stored and who deleted a file is written down, now that files can be deleted."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("config", "0008_audit_status_links"), ("messaging", "0016_rotating_secret")]

    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON messaging_mediafile"
            " FOR EACH ROW EXECUTE FUNCTION flotilla_audit();",
            "DROP TRIGGER IF EXISTS audited ON messaging_mediafile;",
        ),
    ]
