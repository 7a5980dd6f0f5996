"""Turns prepared records into batches of clips, with tf.data on the host.

Read `batch.py` first (what a batch contains), then `pipeline.py` (how it is produced).
"""
