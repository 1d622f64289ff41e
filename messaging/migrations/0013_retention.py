"""When a batch's old messages were removed, and how far old texts have been emptied."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("messaging", "0012_request_id")]

    operations = [
        migrations.AddField(
            model_name="batch",
            name="emptying_at",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="Since when its old messages are removed; its counters stay.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="batch",
            name="emptied_at",
            field=models.DateTimeField(blank=True, editable=False, help_text="When they were all gone.", null=True),
        ),
        migrations.CreateModel(
            name="RetentionMark",
            fields=[
                ("kind", models.CharField(max_length=20, primary_key=True, serialize=False)),
                ("row_id", models.BigIntegerField(default=0)),
            ],
        ),
    ]
