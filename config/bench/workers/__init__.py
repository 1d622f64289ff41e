"""Programs that the benches start and measure.

They run as the top-level package ``workers``, never through ``config``: importing that makes the product's Celery app,
whose Django hooks would then slow down the baselines too.
"""
