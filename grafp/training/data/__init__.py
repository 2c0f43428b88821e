"""From audio files to training pairs, one module a step.

files                       folders, or tables with path, split and group
  |  pcm.py                 decode parts of a collection
PCM shards                  Parquet, shared by all runs on the same music
  |  prepare.py             one table: duplicates marked; some groups are for validation
  |  partition.py           whole groups to each worker
share of a worker           rows of shards
  |  buffer.py              load them: all, or a few shards at a time
waveforms in memory         int16, one tensor
  |  sampler.py             two segments of one recording, shifted by up to 50 ms
batches of positive pairs   to grafp/training/trainer.py
"""
