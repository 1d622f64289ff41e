"""API tokens of our own, with a name, scopes and the moment of their last use; the second factor of log-ins."""

import uuid

import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import config.token_models
import devices.secrets

# The moment of the last use is no change that anybody made; knox' own table is left, empty, to its own migrations.
TOKENS = """
CREATE TRIGGER audited AFTER INSERT OR DELETE OR UPDATE OF user_id, name, scopes, expiry ON config_apitoken
    FOR EACH ROW EXECUTE FUNCTION flotilla_audit();
INSERT INTO config_apitoken (digest, token_key, user_id, created, expiry, id, name, scopes)
    SELECT digest, token_key, user_id, created, expiry, gen_random_uuid(), '', ARRAY['all'] FROM knox_authtoken;
DELETE FROM knox_authtoken;
"""
FACTORS = """
CREATE TRIGGER audited AFTER INSERT OR DELETE OR UPDATE OF user_id, sealed, confirmed_at ON config_secondfactor
    FOR EACH ROW EXECUTE FUNCTION flotilla_audit();
"""


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("config", "0005_demo_data"),
        ("knox", "0009_extend_authtoken_field"),
    ]

    operations = [
        migrations.CreateModel(
            name="ApiToken",
            fields=[
                ("digest", models.CharField(max_length=128, primary_key=True, serialize=False)),
                ("token_key", models.CharField(db_index=True, max_length=25)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("expiry", models.DateTimeField(blank=True, null=True)),
                ("public_id", models.UUIDField(db_column="id", default=uuid.uuid4, editable=False, unique=True)),
                ("name", models.CharField(blank=True, help_text="What it is for, as “web shop”.", max_length=100)),
                (
                    "scopes",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=40),
                        default=config.token_models.full_access,
                        size=None,
                    ),
                ),
                ("last_used_at", models.DateTimeField(blank=True, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="auth_token_set",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={"verbose_name": "API token", "ordering": ["-created"]},
        ),
        migrations.CreateModel(
            name="SecondFactor",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="second_factor",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "sealed",
                    devices.secrets.SecretsField(help_text="The seed, by the installation's field keys."),
                ),
                ("confirmed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "last_step",
                    models.BigIntegerField(
                        default=0, help_text="The 30 seconds whose code was last accepted, of 1970."
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="RecoveryCode",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("digest", models.CharField(max_length=64)),
                ("used_at", models.DateTimeField(blank=True, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="recovery_codes",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("user", "digest"), name="recovery_code_once")],
            },
        ),
        migrations.RunSQL(TOKENS, "DROP TRIGGER IF EXISTS audited ON config_apitoken;"),
        migrations.RunSQL(FACTORS, "DROP TRIGGER IF EXISTS audited ON config_secondfactor;"),
    ]
