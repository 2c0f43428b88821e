from torch import Tensor, nn

class MelSpectrogram(nn.Module):
    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 400,
        win_length: int | None = None,
        hop_length: int | None = None,
        f_min: float = 0.0,
        f_max: float | None = None,
        n_mels: int = 128,
        power: float | None = 2.0,
        center: bool = True,
    ) -> None: ...
    def __call__(self, waveform: Tensor) -> Tensor: ...
