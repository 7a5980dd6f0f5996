"""PyTorch checkpoints, read and written. Only this room imports torch, when needed.

Read `from_torch` first, then `names`.

from_torch    a state dict -> an exported encoder
to_torch      an exported encoder -> a state dict
names         the names of the layers in the supported code bases
clip_fields   the clips that an encoder wants, as these files say it
matching      which of these encoders a state dict contains
heads         the heads that are converted with the encoder
layouts       the order of the axes of an array in PyTorch
state_dicts   files with state dicts
torch_files   the tensors in a file of torch.save
unpickling    pickles, of which nothing is run
"""
