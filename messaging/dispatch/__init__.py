"""The corridor a message walks: release → queue → claim → gateway → record → next.

``release`` picks what is due and puts it on the device queues, ``send`` carries one message to its gateway, ``recover``
looks after what a crash left behind. ``statements`` holds the SQL, ``pool`` the connections it runs on.
"""
