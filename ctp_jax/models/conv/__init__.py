"""How 3-D convolutions are computed; read `conv3d` first.

conv3d           the one function that layers call; it chooses an implementation
direct           XLA's own 3-D convolution, for accelerators
onednn           for CPUs whose XLA calls oneDNN
temporal         for other CPUs: a 3-D convolution as 2-D convolutions, one per temporal tap
frames           the 2-D convolutions of `temporal`, whose gradients are fast on CPUs
few_channels     gradients of thin layers' kernels, on CPUs
few_frames       where frames are fewer than temporal taps: frames as channels
space_to_depth   for matrix units: the strided stem as one convolution of more channels

All of them compute the same function, and are tested against XLA's own convolution.
"""
