#!/usr/bin/env python3
"""Segments per second of one core: each preset, plain form, folded fp32 and the inference form.

    python benchmarks/encoder.py

All forms see the same spectrograms of synthesized music in turn, round after round, so that a
busy machine slows them alike. The spectrogram's own cost is a row of the table. The last column
is the least cosine between a form's fingerprints and the plain form's.
"""

import argparse
import sys
import time

from pipelines.common import cli


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--presets",
        default="grafprint-readout,small,nafp,ast,ast-small",
        help="by name, with commas",
    )
    parser.add_argument("--seconds", type=cli.positive_float, default=6.0, help="per form, s")
    parser.add_argument("--model", default="small", metavar="NAME|URI", help="weights of `small`")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    import torch

    from grafp.audio import synthesis
    from grafp.model.bundle import load_bundle
    from grafp.model.features import log_mel
    from grafp.model.inference import NODES_AT_ONCE, inference_dtype, inference_form
    from grafp.model.presets import PRESETS, build_encoder

    names = chosen.presets.split(",")
    if unknown := set(names) - set(PRESETS):
        raise cli.OptionError(f"--presets: no preset {unknown.pop()!r}; {', '.join(PRESETS)}")
    torch.set_num_threads(1)
    audio_S = torch.from_numpy(synthesis.piece(1, 14.0))
    segments_BS = audio_S.unfold(0, 16_000, 1_600)[:128]
    mel_BFT = log_mel(segments_BS)
    dtype = inference_dtype(torch.device("cpu"))
    print(f"inference form: {dtype}; one thread")
    summary: dict[str, dict] = {}
    rates = _rates({"log-mel": lambda: log_mel(segments_BS)}, len(mel_BFT), 2.0)
    _row("log-mel", rates["log-mel"], None)
    summary["log-mel"] = rates["log-mel"]
    for preset in names:
        config = PRESETS[preset]
        mel_BFT = log_mel(segments_BS, config.spectrogram)
        torch.manual_seed(0)
        encoder = load_bundle(chosen.model).encoder if preset == "small" else build_encoder(config)
        _settle(encoder, mel_BFT)
        # As many segments at a time as the fingerprinter takes.
        x_BFT = mel_BFT[: max(1, NODES_AT_ONCE["cpu"] // encoder.config.nodes)]
        forms = {
            f"{preset}, plain fp32": (encoder, x_BFT),
            f"{preset}, folded fp32": (inference_form(encoder, dtype=torch.float32), x_BFT),
            f"{preset}, inference form": (inference_form(encoder), x_BFT),
        }
        with torch.inference_mode():
            plain_BD = encoder(x_BFT)
            cosines = {k: float((f(x) * plain_BD).sum(1).min()) for k, (f, x) in forms.items()}
            calls = {k: (lambda f=f, x=x: f(x)) for k, (f, x) in forms.items()}
            rates = _rates(calls, len(x_BFT), chosen.seconds * len(forms))
        for name, rate in rates.items():
            _row(name, rate, cosines[name])
            summary[name] = {**rate, "cosine": round(cosines[name], 6)}
    return summary, cli.DONE


def _settle(encoder, mel_BFT) -> None:
    """Give untrained batch norms statistics of music, as trained ones have."""
    import torch

    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        if norms and not float(norms[0].running_mean.abs().sum()):
            encoder.train()
            for _ in range(20):
                encoder(mel_BFT)
    encoder.eval()


def _rates(calls: dict, batch: int, seconds: float) -> dict[str, dict]:
    """Each call in turn until the time is over; median segments per second and the spread."""
    import statistics

    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {
        name: {
            "median": round(batch / statistics.median(each), 1),
            "slowest": round(batch / max(each), 1),
            "fastest": round(batch / min(each), 1),
        }
        for name, each in times.items()
    }


def _row(name: str, rate: dict, cosine: float | None) -> None:
    shown = "" if cosine is None else f"{cosine:.5f}"
    print(
        f"{name:<24} {rate['median']:>8.1f} segments/s "
        f"({rate['slowest']:.0f} to {rate['fastest']:.0f})  {shown}"
    )


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
