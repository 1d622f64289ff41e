"""The chaos run: everything is killed, frozen, cut and emptied under load, and then the simulator's ledger judges.

``manage.py chaos`` starts servers of its own below ``.local/chaos``. ``plan`` draws what will happen from the seed,
``run`` lets it happen with ``troupe`` (our programs), ``servers`` (PostgreSQL and Valkey), ``fleet`` (the load),
``worker_app`` and ``doubling`` (every task twice, and again). ``gather`` reads rows and ledger into ``evidence``,
``judge`` holds that against the promises, ``report`` tells.
"""
