"""A pretend messaging gateway in a process of its own: it misbehaves on request and remembers what reached each phone.

It is the gateway of the demo, the tests and the benchmarks, and their judge, so it shares no code with what it judges:
only aiohttp and the standard library.

=============== ==================================================================
``dialects/``   wire formats, one module per gateway it can pretend to be
``engine``      one request: fault, accept, answer
``links``       which devices have a phone, and how they get one
``faults``      what can go wrong, for whom, how often
``ledger``      every request and every delivery, in memory and on disk
``webhooks``    receipts and replies sent back, signed
``control``     the API that sets all this while it runs
``cli``         command line, start and stop
=============== ==================================================================
"""
