"""One module per data set; the command finds it by its name and uses its `Builder`.

Read `base.py` first, then `hmdb51.py`, the shortest builder with lists. `lists.py` has
what the builders with lists share.
"""
