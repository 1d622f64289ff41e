"""Outgoing webhooks: what happens is told to programs that subscribed to it.

``kinds`` names what can be told, ``telling`` writes down what is to be told, ``bodies`` what a call says, ``signing``
who says it, ``delivering`` makes the calls, ``subscribing`` is what people do: subscribe, change the secret, replay.

Triggers of the database write the rows (migration 0015), in the transaction of the change itself, and only for kinds
that somebody subscribed to: no statement that moves a message knows of it, and none can forget it. At most one process
calls one subscriber at a time, and tells in the order of the rows; a call that failed is made again later, and whatever
comes after waits for it. After too many failures the row is a *dead letter*, and the next is told.

What the triggers cost, in microseconds of PostgreSQL's processor time for each message that becomes sent (medians of
nine interleaved rounds over 4,000 messages, on a busy machine; by all its statements a message costs 700 to 2,600):

======================================  =====================  =============================
who subscribed                          a dozen per statement  alone in its statement
======================================  =====================  =============================
nobody                                  8                      54
somebody else than its owner            19                     86
its owner, so that a row is written     48                     172
======================================  =====================  =============================

A call may be made twice (a process that dies between the call and its record): every event has an ``id`` that stays.
"""
