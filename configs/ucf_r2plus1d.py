"""As ucf_r3d, with R(2+1)D-18: Table 4, 86.2 / 57.1 on UCF / HMDB."""

from configs import ucf_r3d


def get_config(arg=None):
    return ucf_r3d.get_config(f"backbone=r2plus1d18,{arg or ''}")
