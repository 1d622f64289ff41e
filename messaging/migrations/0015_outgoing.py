"""Outgoing webhooks: who is told what, and the triggers that write it down."""

import devices.secrets
import django.contrib.postgres.fields
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


# A row per subscriber that wants to hear of it, in the transaction of the change. The states that a message only passes
# through are no news, and their statements never get as far as calling the function.
FUNCTIONS = """
CREATE FUNCTION flotilla_tell(owner bigint, kind text, subject bigint, data jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO messaging_delivery (subscriber_id, kind, subject, data, happened_at, state, attempts, error)
    SELECT s.id, $2, $3, $4, clock_timestamp(), 'waiting', 0, '' FROM messaging_subscriber s
    WHERE s.enabled AND s.owner_id = $1 AND $2 = ANY (s.kinds::text[])
$$;

CREATE FUNCTION flotilla_tell_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM messaging_subscriber WHERE enabled) THEN
        PERFORM flotilla_tell(
            (SELECT owner_id FROM messaging_batch WHERE id = NEW.batch_id), 'message.' || NEW.state, NEW.id,
            jsonb_build_object('state', NEW.state, 'was', OLD.state, 'error_code', NEW.error_code));
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION flotilla_tell_reply() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM messaging_subscriber WHERE enabled) THEN
        PERFORM flotilla_tell(
            (SELECT owner_id FROM devices_device WHERE id = NEW.device_id), 'reply.received', NEW.id, '{}');
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION flotilla_tell_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM flotilla_tell(NEW.owner_id, 'device.needs_attention', NEW.id, jsonb_build_object('code', NEW.attention_code));
    RETURN NULL;
END $$;

CREATE TRIGGER told AFTER UPDATE OF state ON messaging_message FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state
          AND NEW.state IN ('sent', 'delivered', 'read', 'failed', 'unknown', 'cancelled', 'expired'))
    EXECUTE FUNCTION flotilla_tell_message();
CREATE TRIGGER told AFTER INSERT ON messaging_inboundmessage FOR EACH ROW
    WHEN (NEW.device_id IS NOT NULL) EXECUTE FUNCTION flotilla_tell_reply();
CREATE TRIGGER told AFTER UPDATE OF state ON devices_device FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state AND NEW.state = 'needs_attention')
    EXECUTE FUNCTION flotilla_tell_device();
"""
BACK = """
DROP FUNCTION flotilla_tell_device() CASCADE;
DROP FUNCTION flotilla_tell_reply() CASCADE;
DROP FUNCTION flotilla_tell_message() CASCADE;
DROP FUNCTION flotilla_tell(bigint, text, bigint, jsonb);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('devices', '0009_status_links'),
        ('messaging', '0014_batch_unemptied'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Subscriber',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100)),
                ('url', models.CharField(help_text='Where calls go, as https://example.com/flotilla.', max_length=2048, verbose_name='address')),
                ('kinds', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(choices=[('message.sent', 'A gateway accepted a message'), ('message.delivered', 'A message arrived at its phone'), ('message.read', 'A message was read'), ('message.failed', 'A message failed for good'), ('message.unknown', 'Nobody knows whether a message arrived'), ('message.cancelled', 'A message was cancelled'), ('message.expired', 'A message expired'), ('reply.received', 'Somebody wrote to a device'), ('run.finished', "A campaign's run ended, well or badly"), ('device.needs_attention', 'A device needs a person')], max_length=40), help_text='What it is told.', size=None, verbose_name='events')),
                ('secrets', devices.secrets.SecretsField(blank=True, default=dict, editable=False)),
                ('previous_until', models.DateTimeField(blank=True, editable=False, help_text='Until when the secret before this one signs as well.', null=True)),
                ('enabled', models.BooleanField(default=True, help_text='Nothing that happens while it is disabled is told later.')),
                ('disabled_reason', models.CharField(blank=True, default='', editable=False, max_length=300)),
                ('disabled_at', models.DateTimeField(blank=True, editable=False, help_text='When it was given up.', null=True)),
                ('told_at', models.DateTimeField(blank=True, editable=False, help_text='When the admins heard of that.', null=True)),
                ('failing_since', models.DateTimeField(blank=True, editable=False, null=True)),
                ('failures', models.PositiveIntegerField(default=0, editable=False, help_text='Calls in a row that failed.')),
                ('last_error', models.CharField(blank=True, default='', editable=False, max_length=300)),
                ('held_until', models.DateTimeField(blank=True, editable=False, null=True)),
                ('lease_until', models.DateTimeField(blank=True, editable=False, null=True)),
                ('last_called_at', models.DateTimeField(blank=True, editable=False, null=True)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='subscribers', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Delivery',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('message.sent', 'A gateway accepted a message'), ('message.delivered', 'A message arrived at its phone'), ('message.read', 'A message was read'), ('message.failed', 'A message failed for good'), ('message.unknown', 'Nobody knows whether a message arrived'), ('message.cancelled', 'A message was cancelled'), ('message.expired', 'A message expired'), ('reply.received', 'Somebody wrote to a device'), ('run.finished', "A campaign's run ended, well or badly"), ('device.needs_attention', 'A device needs a person'), ('test', 'A test, by a person')], max_length=40)),
                ('subject', models.BigIntegerField(help_text='Id of the message, reply, run or device.')),
                ('data', models.JSONField(default=dict, help_text='What its row will not tell any more when the call is made.')),
                ('happened_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('delivered', 'Delivered'), ('dead', 'Dead letter')], db_default='waiting', default='waiting', max_length=9)),
                ('attempts', models.PositiveSmallIntegerField(db_default=0, default=0)),
                ('answered', models.PositiveSmallIntegerField(blank=True, help_text='HTTP status of the last answer.', null=True)),
                ('error', models.CharField(blank=True, db_default='', default='', max_length=300)),
                ('tried_at', models.DateTimeField(blank=True, null=True)),
                ('ended_at', models.DateTimeField(blank=True, help_text='When it was delivered or given up.', null=True)),
                ('subscriber', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='deliveries', to='messaging.subscriber')),
            ],
            options={
                'verbose_name_plural': 'deliveries',
                'ordering': ['-id'],
            },
        ),
        migrations.AddConstraint(
            model_name='subscriber',
            constraint=models.UniqueConstraint(fields=('owner', 'name'), name='subscriber_owner_name'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(condition=models.Q(('state', 'waiting')), fields=['subscriber', 'id'], name='delivery_waiting'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(condition=models.Q(('state', 'dead')), fields=['subscriber', 'id'], name='delivery_dead'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(fields=['subscriber', '-id'], name='delivery_subscriber'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(condition=models.Q(('ended_at__isnull', False)), fields=['ended_at'], name='delivery_ended'),
        ),
        migrations.AddConstraint(
            model_name='delivery',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['waiting', 'delivered', 'dead'])), name='delivery_state_known'),
        ),
        migrations.RunSQL(FUNCTIONS, BACK),
    ]
