"""Evaluators: what is measured on held-out videos.

base             the interface of an evaluator; read this first
recognition      accuracy of a classifier, confusion matrix
tracking         overlap of predicted and true trajectories
sequences        the same in whole videos, of which tracks are made (GOT-10k)
tracks           their tracks: KCF's beside them, pictures
means            means of numbers that the task says of each video
retrieval        whether a video's nearest neighbours have its class
knn              classification by the nearest neighbours
pairs            whether two clips of a video find each other (contrastive tasks)
feature_bank     features of two splits, which retrieval and knn share
nearest          exact search for nearest neighbours
neighbour_sheet  draws them

`config.evaluators` names the modules. docs/tasks.md shows a whole evaluator.
"""
