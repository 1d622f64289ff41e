"""Who subscribes to what is written down, as other things people change are."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("config", "0006_access"), ("messaging", "0015_outgoing")]

    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON messaging_subscriber"
            " FOR EACH ROW EXECUTE FUNCTION flotilla_audit();",
            "DROP TRIGGER IF EXISTS audited ON messaging_subscriber;",
        ),
    ]
