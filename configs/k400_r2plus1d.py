"""As k400_r3d, with R(2+1)D-18: Table 4, 88.4 / 61.7 on UCF / HMDB."""

from configs import k400_r3d


def get_config(arg=None):
    return k400_r3d.get_config(f"backbone=r2plus1d18,{arg or ''}")
