"""How often a lead wrote to us, and the index by which sequences find whose triggers changed."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("leads", "0007_import_history")]

    operations = [
        migrations.AddField(
            model_name="lead",
            name="times_replied",
            field=models.IntegerField(
                db_default=0,
                default=0,
                editable=False,
                help_text="How often they wrote to us: what is not to go out after a reply is claimed by this number.",
            ),
        ),
        migrations.AddIndex(
            model_name="lead",
            index=models.Index(
                condition=models.Q(("triggers", []), _negated=True), fields=["updated_at"], name="lead_tagged_updated"
            ),
        ),
        migrations.AlterField(
            model_name="leadchange",
            name="channel",
            field=models.CharField(
                choices=[
                    ("admin", "Admin"), ("api", "API"), ("webhook", "Webhook"), ("import", "Import"),
                    ("system", "By itself"),
                ],
                max_length=7,
            ),
        ),
    ]
