"""The main job on real input: an expired site is watched, gets a certificate, and is deployed to under load.

Starts the product on a throw-away data directory and a private nginx (and, for DNS validation, a private Knot DNS) on
free ports, then does everything through the public API, as any other client would.
"""
