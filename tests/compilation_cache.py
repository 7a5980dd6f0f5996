"""The tests' cache of compiled programs, see conftest.py, without its slowest part."""

from jax._src import lru_cache


def keep_everything():
    """JAX adds a program without looking at all others, which ones to remove.

    That takes 50 microseconds for each of the thousands that there are. The cache never
    gets as large as it may. JAX's own option for that turns the locks off, too.
    """
    lru_cache.LRUCache._evict_if_needed = lambda *_, **__: None
