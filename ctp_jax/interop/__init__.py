"""Checkpoints of PyTorch, both ways. The only part that imports torch, and lazily.

names         what the layers are called there
layouts       how an array lies there
state_dicts   .pth and .safetensors files
from_torch    a state dict -> an exported encoder
to_torch      an exported encoder -> a state dict
"""
