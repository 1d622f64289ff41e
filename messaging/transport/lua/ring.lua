-- A bell was heard by a consumer that cannot act on it: pass it on. KEYS: bell.
ring_if_ready(KEYS[1])
return 1
