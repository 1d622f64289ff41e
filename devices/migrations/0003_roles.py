"""The four roles, as groups. What they may see is decided in devices.access."""

from django.db import migrations

ROLES = ("admin", "staff", "team", "ops")


def make_roles(apps, schema_editor):
    group = apps.get_model("auth", "Group")
    for name in ROLES:
        group.objects.get_or_create(name=name)


class Migration(migrations.Migration):
    dependencies = [("devices", "0002_clock"), ("auth", "0012_alter_user_first_name_max_length")]

    operations = [migrations.RunPython(make_roles, migrations.RunPython.noop)]
