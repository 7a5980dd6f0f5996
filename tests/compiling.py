"""How tests compile programs, see conftest.py: quickly, and each once."""

import jaxlib
from jax._src import compiler, lru_cache

# One part per program. With XLA's older code generator, where there is still one, that
# is half the time of a training step's compilation.
QUICK = {"xla_cpu_parallel_codegen_split_count": 1}
if jaxlib.version.__version_info__ < (0, 11):
    QUICK["xla_cpu_use_fusion_emitters"] = False


def quickly():
    """Where most optimisations are off, so are these; users' programs stay as they are."""
    get = compiler.get_compile_options

    def get_compile_options(*args, env_options_overrides=None, **kwargs):
        if compiler._DISABLE_MOST_OPTIMIZATIONS.value:
            env_options_overrides = QUICK | dict(env_options_overrides or {})
        return get(*args, env_options_overrides=env_options_overrides, **kwargs)

    compiler.get_compile_options = get_compile_options


def environ():
    """For a process without `quickly`: its programs are compiled so from the beginning."""
    flags = (f"--{name}={str(value).lower()}" for name, value in QUICK.items())
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": " ".join(flags)}


def keep_everything():
    """JAX adds a program without looking at all others, which ones to remove.

    That takes 50 microseconds for each of the thousands that there are. The cache never
    gets as large as it may. JAX's own option for that turns the locks off, too.
    """
    lru_cache.LRUCache._evict_if_needed = lambda *_, **__: None
