"""The local stack: real PostgreSQL and Valkey from wheels, the programs on top, and nothing left behind.

No module here imports Django, so that settings may ask :mod:`config.stack.addresses` where the servers are.

    addresses    where PostgreSQL and Valkey are (environment, running stack, or nowhere yet)
    keys         secrets made once for this checkout
    local        LocalStack: one owner, two servers, one state file
    supervisor   the programs on top: started, watched, restarted, stopped
    full         servers + migrations + programs, as one context manager
    processes    who a process is, how it is stopped, and the guard that outlives us
"""
