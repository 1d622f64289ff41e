"""The demo: a real campaign through the whole stack, judged by the simulator's ledger.

``manage.py demo`` starts the stack and then runs ``manage.py voyage`` against it. The voyage uses the services that
the admin and the API use; nothing in them knows of the demo.
"""
