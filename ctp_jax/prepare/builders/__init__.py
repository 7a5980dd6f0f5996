"""One module per data set; the command finds it by its name and uses its `Builder`.

Read `base.py` first, then `hmdb51.py`, the shortest builder with lists. What several
share: `folders.py` finds videos, `lists.py` reads lists of them, `derived.py` starts from
a prepared data set.
"""
