"""Messages that are not to go out after a reply."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("leads", "0008_times_replied"), ("messaging", "0008_media")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="reply_no",
            field=models.IntegerField(
                blank=True,
                editable=False,
                help_text="Goes out only while its lead has written this often; empty: however often. -1: withdrawn.",
                null=True,
            ),
        ),
    ]
