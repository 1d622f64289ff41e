"""Worker processes that tell of themselves, and when the ticks last ran."""


import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('messaging', '0009_reply_no'),
    ]

    operations = [
        migrations.CreateModel(
            name='Pulse',
            fields=[
                ('name', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='WorkerProcess',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=200)),
                ('host', models.CharField(max_length=200)),
                ('pid', models.PositiveIntegerField()),
                ('queues', models.JSONField(default=list)),
                ('threads', models.PositiveIntegerField(default=0)),
                ('started_at', models.DateTimeField()),
                ('seen_at', models.DateTimeField()),
                ('left_at', models.DateTimeField(blank=True, help_text='When it ended by itself; empty if it was killed.', null=True)),
                ('last_active_at', models.DateTimeField(blank=True, help_text='When it last had a task.', null=True)),
                ('active_tasks', models.PositiveIntegerField(default=0)),
                ('tasks', models.PositiveBigIntegerField(default=0)),
                ('sent', models.PositiveBigIntegerField(default=0)),
                ('failed', models.PositiveBigIntegerField(default=0)),
                ('sent_per_minute', models.PositiveIntegerField(default=0)),
                ('memory_mb', models.PositiveIntegerField(default=0)),
                ('figures', models.JSONField(default=dict)),
            ],
            options={
                'verbose_name_plural': 'worker processes',
                'ordering': ['name', '-started_at'],
            },
        ),
    ]
