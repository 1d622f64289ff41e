"""Subscribers are told of runs that ended."""

from django.db import migrations

TELL = """
CREATE FUNCTION flotilla_tell_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM flotilla_tell(c.owner_id, 'run.finished', NEW.id, jsonb_build_object(
        'campaign', c.id, 'campaign_name', c.name, 'state', NEW.state, 'reason', NEW.reason,
        'batches', coalesce(
            (SELECT jsonb_agg(v.batch_id ORDER BY v.batch_id) FROM campaigns_runvariant v WHERE v.run_id = NEW.id),
            (SELECT jsonb_agg(NEW.batch_id) WHERE NEW.batch_id IS NOT NULL), '[]')))
    FROM campaigns_campaign c WHERE c.id = NEW.campaign_id;
    RETURN NULL;
END $$;

CREATE TRIGGER told AFTER UPDATE OF state ON campaigns_run FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state AND NEW.state IN ('finished', 'failed'))
    EXECUTE FUNCTION flotilla_tell_run();
"""


class Migration(migrations.Migration):
    dependencies = [("campaigns", "0003_schedules"), ("messaging", "0015_outgoing")]

    operations = [migrations.RunSQL(TELL, "DROP FUNCTION flotilla_tell_run() CASCADE;")]
