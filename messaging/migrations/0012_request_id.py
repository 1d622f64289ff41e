from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("messaging", "0011_day_counts")]

    operations = [
        migrations.AddField(
            model_name="batch",
            name="request_id",
            field=models.CharField(
                blank=True,
                db_default="",
                editable=False,
                help_text="The request that asked for it in the logs.",
                max_length=64,
            ),
        ),
    ]
