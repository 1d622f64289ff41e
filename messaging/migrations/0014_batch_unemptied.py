"""The index by which old batches are found; built while batches are made and finished."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("messaging", "0013_retention")]

    operations = [
        # Building it waits for transactions that are older, which is no harm; giving up half-way would be.
        migrations.RunSQL("SET lock_timeout = 0", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name="batch",
            index=models.Index(
                condition=models.Q(("emptied_at__isnull", True), ("finished_at__isnull", False)),
                fields=["finished_at"],
                name="batch_unemptied",
            ),
        ),
        migrations.RunSQL("RESET lock_timeout", migrations.RunSQL.noop),
    ]
