"""What has been moved over from a system before this one."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("config", "0003_audit"),
    ]

    operations = [
        migrations.CreateModel(
            name="LegacyMove",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "name",
                    models.CharField(help_text="Which system before, as its operator calls it.", max_length=40),
                ),
                (
                    "consent_basis",
                    models.CharField(
                        blank=True, help_text="As declared; empty: no consent was noted.", max_length=200
                    ),
                ),
                ("started_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "finished_at",
                    models.DateTimeField(
                        blank=True, help_text="Empty: it goes on, or was interrupted.", null=True
                    ),
                ),
                ("counts", models.JSONField(default=dict, help_text='{"leads": {"taken": 10, "refused": 1}}')),
                (
                    "by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={"ordering": ["-id"]},
        ),
        migrations.CreateModel(
            name="LegacyRow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=40)),
                ("table", models.CharField(max_length=40)),
                ("old_id", models.CharField(max_length=64)),
                ("new_id", models.BigIntegerField()),
                (
                    "lacks",
                    models.CharField(
                        blank=True, db_default="", default="", help_text="What could not come yet.", max_length=20
                    ),
                ),
                ("taken_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("name", "table", "old_id"), name="legacy_row_once")
                ],
            },
        ),
        migrations.RunSQL(
            "CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON config_legacymove"
            " FOR EACH ROW EXECUTE FUNCTION flotilla_audit();",
            "DROP TRIGGER IF EXISTS audited ON config_legacymove;",
        ),
    ]
