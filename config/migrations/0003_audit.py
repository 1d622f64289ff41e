"""The audit trail: its table, the triggers that write it, and the one that keeps it as it was written."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

TABLES = (
    "auth_user",
    "auth_user_groups",
    "knox_authtoken",
    "devices_device",
    "devices_deviceshare",
    "devices_hookkey",
    "devices_pool",
    "leads_consentwaiver",
    "leads_leadimport",
    "leads_leadsource",
    "leads_segment",
    "messaging_batch",
    "messaging_halt",
    "campaigns_campaign",
    "campaigns_run",
    "campaigns_variant",
    "sequences_sequence",
    "sequences_step",
)

# Hidden columns show that they changed, never to what. last_login changes with every log-in, which has its own entry.
FUNCTIONS = """
CREATE FUNCTION flotilla_audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    hidden constant text[] := ARRAY['password', 'credentials', 'options', 'secrets', 'sealed', 'digest', 'key',
                                    'token_key', 'file'];
    said constant text := coalesce(current_setting('flotilla.actor', true), '');
    who jsonb;
    old_row jsonb := '{}';
    new_row jsonb := '{}';
    was jsonb;
    became jsonb;
BEGIN
    IF said = '' THEN
        RETURN NULL;
    END IF;
    who := said::jsonb;
    IF TG_OP <> 'INSERT' THEN old_row := to_jsonb(OLD) - 'last_login'; END IF;
    IF TG_OP <> 'DELETE' THEN new_row := to_jsonb(NEW) - 'last_login'; END IF;
    SELECT jsonb_object_agg(key, CASE WHEN key = ANY (hidden) THEN '"(hidden)"'::jsonb ELSE value END) INTO was
      FROM jsonb_each(old_row) WHERE TG_OP <> 'UPDATE' OR new_row -> key IS DISTINCT FROM value;
    SELECT jsonb_object_agg(key, CASE WHEN key = ANY (hidden) THEN '"(hidden)"'::jsonb ELSE value END) INTO became
      FROM jsonb_each(new_row) WHERE TG_OP <> 'UPDATE' OR old_row -> key IS DISTINCT FROM value;
    IF TG_OP = 'UPDATE' AND became IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO config_auditentry (at, user_id, address, action, event, "table", object_id, before, after)
    VALUES (clock_timestamp(), (who ->> 'user')::bigint, (who ->> 'address')::inet, who ->> 'action', lower(TG_OP),
            TG_TABLE_NAME, coalesce(new_row ->> 'id', old_row ->> 'id', ''), was, became);
    RETURN NULL;
END $$;

CREATE FUNCTION flotilla_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('flotilla.audit_retention', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'The audit trail stays as it was written.' USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE ON config_auditentry
    FOR EACH ROW EXECUTE FUNCTION flotilla_audit_stays();
"""


def _each(words):
    return "\n".join(words.format(table=table) for table in TABLES)


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("config", "0002_digest"),
        ("knox", "__first__"),
        ("devices", "0008_pairing"),
        ("leads", "0008_times_replied"),
        ("messaging", "0009_reply_no"),
        ("campaigns", "0003_schedules"),
        ("sequences", "0003_tally"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                ("address", models.GenericIPAddressField(help_text="Where the request came from.", null=True)),
                (
                    "action",
                    models.CharField(
                        help_text="What was asked for: the method and the name of the address.", max_length=120
                    ),
                ),
                (
                    "event",
                    models.CharField(
                        choices=[
                            ("insert", "Added"),
                            ("update", "Changed"),
                            ("delete", "Removed"),
                            ("login", "Logged in"),
                            ("refused", "Log-in refused"),
                        ],
                        max_length=8,
                    ),
                ),
                ("table", models.CharField(max_length=63)),
                ("object_id", models.CharField(max_length=64)),
                (
                    "before",
                    models.JSONField(
                        help_text="Fields as they were; of a change, only those that changed.", null=True
                    ),
                ),
                ("after", models.JSONField(help_text="Fields as they became. Secrets are hidden.", null=True)),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "audit entries",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["user", "-id"], name="audit_user"),
                    models.Index(fields=["table", "object_id"], name="audit_object"),
                ],
            },
        ),
        migrations.RunSQL(
            FUNCTIONS,
            "DROP FUNCTION flotilla_audit_stays() CASCADE; DROP FUNCTION flotilla_audit() CASCADE;",
        ),
        migrations.RunSQL(
            _each(
                "CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON {table}"
                " FOR EACH ROW EXECUTE FUNCTION flotilla_audit();"
            ),
            _each("DROP TRIGGER IF EXISTS audited ON {table};"),
        ),
    ]
