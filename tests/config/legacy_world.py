"""A database of system A on the test server: its tables as its installs have them, and some people in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
from django.db import connection
from psycopg2.extensions import make_dsn

TABLES = """
CREATE TABLE users (id uuid PRIMARY KEY, email varchar(255) UNIQUE, full_name varchar(255), password_hash text,
    is_active boolean DEFAULT true);
CREATE TABLE user_devices (id uuid PRIMARY KEY, user_id uuid, device_name text, phone text, jid text, status text,
    min_delay_seconds int DEFAULT 5, max_delay_seconds int DEFAULT 15, platform text);
CREATE TABLE leads (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), device_id uuid, user_id uuid, name text, phone text,
    niche text, journey text, target_status text, trigger text, platform text);
CREATE TABLE campaigns (id serial PRIMARY KEY, user_id uuid, title text, niche text, target_status text, message text,
    image_url text, campaign_date date, time_schedule text, scheduled_at timestamptz, min_delay_seconds int,
    max_delay_seconds int, ai text, "limit" int, status text);
CREATE TABLE sequences (id uuid PRIMARY KEY, user_id uuid, name text, niche text, target_status text, status text,
    trigger text, time_schedule text, min_delay_seconds int, max_delay_seconds int, auto_enroll boolean);
CREATE TABLE sequence_steps (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), sequence_id uuid, day_number int,
    trigger text, next_trigger text, trigger_delay_hours int DEFAULT 24, is_entry_point boolean DEFAULT false,
    message_type text, content text, media_url text, caption text, time_schedule text, delay_days int);
CREATE TABLE sequence_contacts (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), sequence_id uuid, contact_phone text,
    contact_name text, current_step int, status text);
CREATE TABLE broadcast_messages (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), device_id uuid, campaign_id int,
    sequence_id uuid, recipient_phone text, status text);
CREATE TABLE team_members (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text);
"""

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def uid(number: int) -> str:
    """A fixed UUID."""
    return f"00000000-0000-4000-8000-{number:012d}"


OWNER, STRANGER = uid(1), uid(2)
SESSION, WABLAS, WHACENTER, TOKENLESS, ODD, LONELY = (uid(number) for number in range(11, 17))
COLD, WARM = uid(31), uid(32)
JID = "60110000001:7@s.whatsapp.net"

PEOPLE = f"""
INSERT INTO users VALUES ('{OWNER}', 'Aisyah@example.com', 'Aisyah', 'c2VjcmV0', true),
                         ('{STRANGER}', '', 'Nobody', 'c2VjcmV0', true);
INSERT INTO user_devices VALUES
    ('{SESSION}', '{OWNER}', 'Kedai', '60110000001', '{JID}', 'online', 5, 15, NULL),
    ('{WABLAS}', '{OWNER}', 'Kedai', '', 'wablas-token', 'offline', 1, 2, 'Wablas'),
    ('{WHACENTER}', '{OWNER}', 'Centre', '', 'whacenter-id', 'online', NULL, NULL, 'Whacenter'),
    ('{TOKENLESS}', '{OWNER}', 'No token', '', '', 'offline', 5, 15, 'Wablas'),
    ('{ODD}', '{OWNER}', 'Odd', '', 'x', 'offline', 5, 15, 'Carrier pigeon'),
    ('{LONELY}', '{STRANGER}', 'Lonely', '', 'x', 'offline', 5, 15, 'Wablas');
INSERT INTO leads (id, device_id, user_id, name, phone, niche, journey, target_status, trigger) VALUES
    ('{uid(101)}', '{SESSION}', '{OWNER}', 'Ali', '0123456701', 'EXSTART, VITAC', 'asked in May', 'customer', 'COLD'),
    ('{uid(102)}', '{WABLAS}', '{OWNER}', 'Siti', '60123456702', 'EXSTART2', NULL, 'prospect', 'COLD'),
    ('{uid(103)}', '{WHACENTER}', '{OWNER}', 'Ali again', '+60 12-345 6701', 'TITAN', '', 'prospect', ''),
    ('{uid(104)}', '{WABLAS}', '{OWNER}', 'No number', '12', '', '', 'prospect', ''),
    ('{uid(105)}', '{ODD}', '{OWNER}', 'Mei', '60123456705', 'EXSTART', '', 'prospect', 'COLD'),
    ('{uid(106)}', '{WABLAS}', '{OWNER}', 'Odd status', '60123456706', '', '', 'maybe', ''),
    ('{uid(107)}', '{LONELY}', '{STRANGER}', 'Lost', '60123456707', '', '', 'prospect', '');
INSERT INTO campaigns (user_id, title, niche, target_status, message, image_url, campaign_date, time_schedule,
                       min_delay_seconds, max_delay_seconds, ai, "limit", status) VALUES
    ('{OWNER}', 'Raya', 'EXSTART', 'all', 'Salam {{name}}', '{PIXEL}', '2031-01-31', '09:30', 10, 30, NULL, NULL,
     'pending'),
    ('{OWNER}', 'Done', 'TITAN', 'prospect', 'Bye', 'http://127.0.0.1/x.png', '2024-01-31', '', 10, 30, 'ai', 80,
     'completed'),
    ('{OWNER}', 'Broken', '', 'all', 'Hello {{% if %}}', '', NULL, '25:61', 10, 30, NULL, NULL, 'pending');
INSERT INTO sequences VALUES
    ('{COLD}', '{OWNER}', 'Cold', 'EXSTART', 'prospect', 'active', 'COLD', '10:00', 5, 15, true),
    ('{WARM}', '{OWNER}', 'Warm', '', 'all', 'inactive', '', '', 5, 15, true);
INSERT INTO sequence_steps (sequence_id, day_number, trigger, next_trigger, trigger_delay_hours, is_entry_point,
                            message_type, content, media_url, caption, time_schedule) VALUES
    ('{COLD}', 2, 'cold_2', 'WARM', 48, false, 'image', '', 'http://127.0.0.1/a.png', 'Look', '9:15 pm'),
    ('{COLD}', 1, 'COLD', 'cold_2', 24, true, 'text', 'Hi {{name}}', NULL, NULL, NULL),
    ('{COLD}', 3, 'cold_3', NULL, 24, false, 'image', '', 'http://127.0.0.1/b.png', NULL, NULL),
    ('{WARM}', 1, 'WARM', NULL, 24, true, 'text', 'Warm hello', NULL, NULL, NULL);
INSERT INTO sequence_contacts (sequence_id, contact_phone, current_step, status) VALUES
    ('{COLD}', '60123456701', 1, 'sent'), ('{COLD}', '60123456701', 2, 'active'),
    ('{COLD}', '60123456702', 3, 'completed'), ('{COLD}', '60123456799', 1, 'active');
INSERT INTO broadcast_messages (device_id, campaign_id, recipient_phone, status) VALUES
    ('{WABLAS}', 1, '60123456701', 'pending'), ('{WABLAS}', 2, '60123456701', 'sent');
INSERT INTO team_members (name) VALUES ('Somebody');
"""  # noqa: S608 - constants

STORE = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE {schema}.whatsmeow_version (version int);
CREATE TABLE {schema}.whatsmeow_device (jid text PRIMARY KEY, registration_id bigint NOT NULL,
    noise_key bytea NOT NULL);
CREATE TABLE {schema}.whatsmeow_app_state_version (jid text REFERENCES {schema}.whatsmeow_device ON DELETE CASCADE,
    name text, version bigint NOT NULL, PRIMARY KEY (jid, name));
CREATE TABLE {schema}.whatsmeow_app_state_mutation_macs (jid text, name text, value_mac bytea NOT NULL,
    FOREIGN KEY (jid, name) REFERENCES {schema}.whatsmeow_app_state_version ON DELETE CASCADE);
CREATE TABLE {schema}.whatsmeow_sessions (our_jid text REFERENCES {schema}.whatsmeow_device ON DELETE CASCADE,
    their_id text, session bytea, PRIMARY KEY (our_jid, their_id));
CREATE TABLE {schema}.whatsmeow_lid_map (lid text PRIMARY KEY, pn text UNIQUE NOT NULL);
"""

SESSIONS = f"""
INSERT INTO whatsmeow_device VALUES ('{JID}', 4711, '\\x01ff'), ('6011999:1@s.whatsapp.net', 1, '\\x02');
INSERT INTO whatsmeow_app_state_version VALUES ('{JID}', 'critical', 3);
INSERT INTO whatsmeow_app_state_mutation_macs VALUES ('{JID}', 'critical', '\\x03');
INSERT INTO whatsmeow_sessions VALUES ('{JID}', 'peer', '\\x04'), ('6011999:1@s.whatsapp.net', 'peer', '\\x05');
INSERT INTO whatsmeow_lid_map VALUES ('lid1', '60123456701'), ('lid2', '60123456702');
"""  # noqa: S608 - constants


def address_of(database: str) -> str:
    """libpq's address of a database on the test server."""
    given = connection.get_connection_params()
    known = {name: given[name] for name in ("host", "port", "user", "password") if given.get(name)}
    return make_dsn(dbname=database, **known)


def run(address: str, *statements: str) -> None:
    """Commit these there."""
    with closing(psycopg2.connect(address)) as there, there, there.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextmanager
def old_system(*more: str) -> Iterator[str]:
    """The address of a database with all of the above; gone afterwards."""
    name = f"legacy_{os.getpid()}"
    with closing(psycopg2.connect(address_of("postgres"))) as server:
        server.autocommit = True
        with server.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name}")
        try:
            run(address_of(name), TABLES, PEOPLE, *more)
            yield address_of(name)
        finally:
            with server.cursor() as cursor:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def our_store() -> None:
    """Our session store, somewhat newer than theirs; goes with the test's transaction."""
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS whatsmeow CASCADE")
        cursor.execute(STORE.format(schema="whatsmeow"))
        cursor.execute("ALTER TABLE whatsmeow.whatsmeow_device ADD COLUMN lid text")


def in_our_store(table: str) -> list[tuple[Any, ...]]:
    """The rows of a table of our session store."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM whatsmeow.{table} ORDER BY 1")  # noqa: S608 - a name of the store
        return list(cursor.fetchall())
