"""Trials of an installation on several hosts: network namespaces of one machine, each with its own address and name.

``manage.py hosts_trial`` makes them and takes them down again; nothing of the machine's own network is touched, and
whatever ends the command, SIGKILL included, the kernel removes them with their last process. ``network`` makes hosts,
wires and silence, ``scene`` the installation on them, ``gather`` reads what happened and ``judge`` holds it against
the promises; ``hosts`` cuts, kills and adds hosts, ``rolling`` restarts and replaces them.
"""
