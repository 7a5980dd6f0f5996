"""Tables and figures as data, a file each: `python -m ctp_jax.reproduce NAME`.

They name configs and hold no code that trains; ctp_jax/reproduce/experiments.py describes
their form.
"""
