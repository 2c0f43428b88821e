"""From a second of audio to a fingerprint.

In the order of the flow: features (log-mel spectrogram), graph (nearest neighbors, aggregation),
encoder (the paper's network), baselines (those it is compared with), registry and registered
(encoders of other packages), presets (architectures by name), fingerprint (sizes and hops),
inference (a fast copy of an encoder; whole recordings), bundle (weights and card on disk).
"""
