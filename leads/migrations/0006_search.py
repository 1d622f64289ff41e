import django.contrib.postgres.indexes
from django.conf import settings
from django.db import migrations, models

from leads.searching import name_words


class Migration(migrations.Migration):

    dependencies = [
        ('devices', '0005_attention'),
        ('leads', '0005_sources'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='leadimport',
            name='file_unwanted_at',
            field=models.DateTimeField(blank=True, editable=False, help_text='Since when the file has to go as soon as nothing reads it: somebody in it may have been erased.', null=True),
        ),
        migrations.AddIndex(
            model_name='lead',
            index=django.contrib.postgres.indexes.GinIndex(fields=['custom'], name='lead_custom', opclasses=['jsonb_path_ops']),
        ),
        migrations.AddIndex(
            model_name='lead',
            index=django.contrib.postgres.indexes.GinIndex(name_words(), name='lead_name_words'),
        ),
        migrations.AddIndex(
            model_name='lead',
            index=models.Index(condition=models.Q(('consent_at__isnull', True)), fields=['owner', 'id'], name='lead_no_consent'),
        ),
    ]
