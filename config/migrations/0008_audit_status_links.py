"""Who lets the public look at a device is written down, as other things people change are."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("config", "0007_audit_subscribers"), ("devices", "0009_status_links")]

    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON devices_statuslink"
            " FOR EACH ROW EXECUTE FUNCTION flotilla_audit();",
            "DROP TRIGGER IF EXISTS audited ON devices_statuslink;",
        ),
    ]
