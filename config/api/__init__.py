"""The REST API's foundation: errors, pages, idempotency, throttles, tokens, and the router over the apps' modules."""
