"""The chaos run: everything is killed, frozen, cut and emptied under load, and then the simulator's ledger judges.

``manage.py chaos`` starts servers of its own below ``.local/chaos``. ``plan`` draws what will happen from the seed and
``run`` lets it happen, with

* ``troupe`` (our programs) and ``servers`` (PostgreSQL and Valkey), which are struck; ``incidents`` keeps what was;
* ``fleet`` (devices, leads, and the load that launches, pauses, cancels and halts), ``visitor`` (single messages
  through the API) and ``refusals`` (opt-outs under claims);
* ``gateway`` (a driver for a gateway without memory, for half of the fleet) and ``webhook`` (receipts, where the web
  application takes them);
* ``worker_app`` and ``web_app``, by which our programs are loaded, with ``staleness`` (workers that act and tell too
  late), ``skew`` (a clock that is wrong) and every task published twice; ``doubling`` (again, later) and ``rogue`` (a
  releaser that does not look).

``gather`` and ``errors`` read rows, ledger and logs into ``evidence``, ``judge`` holds that against the promises,
``report`` and ``saved`` tell. ``mutations`` and ``mutants`` take the guards out of copies of the code, one by one, to
see whether the judge notices.
"""
