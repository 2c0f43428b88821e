"""Contrastive training of an encoder (paper, section II-C), without Ray.

In the order of the flow: config (settings), data (files to pairs), augment (one view of each pair
degraded), loss (NT-Xent), accumulate (gradients of batches that do not fit), trainer (the loop),
validation (hit rate and offset correction), history (progress, events, curves), checkpoint.
"""
