"""CS231n's networks: objects with `params`, a dict of arrays, and `loss(X, y=None)`."""
