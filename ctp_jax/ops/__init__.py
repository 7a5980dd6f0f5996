"""Operations on pixels and boxes, in jax.numpy: pure, with any leading dimensions.

resample    bilinear sampling of axis-aligned windows; read this first
paste       pasting patches along trajectories
tubelets    pasting patches that also rotate and shear
roi_align   RoIAlign
boxes       formats of boxes, regression targets, overlaps
colour      changes of colour, normalisation
blur        Gaussian blur
contrast    contrastive losses over a queue of keys

The docstrings contain examples, which the tests run.
"""
