"""What jaxtyping's import hook puts around every function of ours, in tests."""

import beartype

# As PEP 484 has it and everybody reads it, an int is welcome where a float is.
check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
