"""``make bench``: what the promises cost, measured against something plainer in the same run.

Machines differ, so every goal is a ratio to a baseline that runs on the same machine, in turns with ours (A B A B …);
medians are compared. Each bench is one module whose docstring says exactly what runs on either side; ``registry`` lists
them. What is measured in processes of its own lives in ``workers``.
"""
