"""Videos of the user's own, which are in no data set.

command_line   flags of the commands that read many videos, and what these name
inference      runs a network over the clips of many videos; read this first
reader         reads one video, frame by frame or clip by clip
writer         writes a video with boxes
feature_file   files of features

The commands are `ctp_jax.features`, `classify`, `search` and `track`.
"""
