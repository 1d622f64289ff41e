"""Counters of enrolments, moved by the very statement that moves the enrolments, whoever runs it."""

from django.db import migrations

STEP_KEY = "coalesce(CASE WHEN state IN ('active', 'paused', 'failed') THEN next_key ELSE last_key END, 0)"

TALLY = f"""
CREATE FUNCTION sequences_tally_enrolments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO sequences_tally (sequence_id, state, code, step_key, number)
        SELECT sequence_id, state, code, {STEP_KEY}, count(*) FROM came GROUP BY 1, 2, 3, 4 ORDER BY 1;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO sequences_tally (sequence_id, state, code, step_key, number)
        SELECT sequence_id, state, code, {STEP_KEY}, -count(*) FROM went GROUP BY 1, 2, 3, 4 ORDER BY 1;
    ELSE
        INSERT INTO sequences_tally (sequence_id, state, code, step_key, number)
        SELECT sequence_id, state, code, step_key, sum(n)
        FROM (SELECT sequence_id, state, code, {STEP_KEY} AS step_key, 1 AS n FROM came
              UNION ALL
              SELECT sequence_id, state, code, {STEP_KEY}, -1 FROM went) moved
        GROUP BY 1, 2, 3, 4 HAVING sum(n) <> 0 ORDER BY 1;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sequences_tally_came AFTER INSERT ON sequences_enrolment
    REFERENCING NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION sequences_tally_enrolments();
CREATE TRIGGER sequences_tally_went AFTER DELETE ON sequences_enrolment
    REFERENCING OLD TABLE AS went FOR EACH STATEMENT EXECUTE FUNCTION sequences_tally_enrolments();
CREATE TRIGGER sequences_tally_moved AFTER UPDATE ON sequences_enrolment
    REFERENCING OLD TABLE AS went NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION sequences_tally_enrolments();
INSERT INTO sequences_tally (sequence_id, state, code, step_key, number)
    SELECT sequence_id, state, code, {STEP_KEY}, count(*) FROM sequences_enrolment GROUP BY 1, 2, 3, 4;
"""
UNDO = """
DROP TRIGGER sequences_tally_came ON sequences_enrolment;
DROP TRIGGER sequences_tally_went ON sequences_enrolment;
DROP TRIGGER sequences_tally_moved ON sequences_enrolment;
DROP FUNCTION sequences_tally_enrolments();
"""


class Migration(migrations.Migration):
    dependencies = [("sequences", "0002_engine")]

    operations = [migrations.RunSQL(TALLY, UNDO)]
