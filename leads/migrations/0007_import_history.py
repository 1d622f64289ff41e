import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('leads', '0006_search'),
    ]

    operations = [
        migrations.AddField(
            model_name='lead',
            name='first_import',
            field=models.ForeignKey(blank=True, db_constraint=False, db_index=False, editable=False, help_text='Which import this lead came with.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='leads.leadimport'),
        ),
        migrations.AlterField(
            model_name='leadchange',
            name='channel',
            field=models.CharField(choices=[('admin', 'Admin'), ('api', 'API'), ('webhook', 'Webhook'), ('import', 'Import')], max_length=7),
        ),
    ]
