"""Python's garbage collector, called less often: a tenth of the tests' time was its."""

import gc


def begin():
    """What has been imported is kept out of collections, which come after more objects.

    Tracing makes millions of objects, and few cycles among them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
