"""The start and the speed of a query in a track, between grid points (paper, eq. 7 and 8).

At a speed, fingerprint i of the query lies at start + speed * i in the track; 1 is the speed as
cataloged. Music that plays 4 % faster drifts by 0.4 s in 10 s. While speeds are tried, the middle
of the query keeps its position. Between two fingerprints of a track lies their normalized mean. A
catalog with a longer hop has none between: its fingerprints are compared with the nearest ones of
the query. Needs NumPy alone.
"""

from dataclasses import dataclass

import numpy as np

from grafp.model.fingerprint import peak_between

_STEPS_H = np.arange(-2.0, 2.1, 0.5)  # of the start, hops; the outer ones only bound the peak
_FINER_STEPS_H = np.arange(-1.0, 1.1, 0.5)  # at other speeds, around the best of the coarse search
_MOST_STEPS = 16  # of the speed, either way
_FINER = np.linspace(-0.5, 0.5, 5)  # of a step of the speed
_LEAST_GAIN = 0.008  # of the score, for another speed than that of the catalog
_NEIGHBORS_ALIKE = 0.73  # mean product of two fingerprints a hop apart, `small` on music
_SILENCE = 1e-3  # squared length below which a mean of two fingerprints is silence


@dataclass(frozen=True)
class Windows:
    """Fingerprints of some tracks around the position of a query, a window for each."""

    vectors_WKD: np.ndarray
    """float32; zeros outside of the track."""
    inside_WK: np.ndarray
    first_W: np.ndarray
    """Number of the window's first fingerprint in its track; may be negative."""
    stride: int
    """Query hops between two fingerprints of a track."""


@dataclass(frozen=True)
class Refined:
    """Where a query lies in each of some windows."""

    start_W: np.ndarray
    """Where in the track the query's first fingerprint lies, query hops; interpolated."""
    speed_W: np.ndarray
    products_WM: np.ndarray
    """Inner products along the query; NaN where the track has no fingerprint."""
    rank_score_W: np.ndarray
    """Eq. 8; where the query sticks out of the track, its fingerprints count as zeros."""

    def replaced(self, other: "Refined", chosen_W: np.ndarray) -> "Refined":
        """That of `other` for the chosen tracks."""
        return Refined(
            np.where(chosen_W, other.start_W, self.start_W),
            np.where(chosen_W, other.speed_W, self.speed_W),
            np.where(chosen_W[:, None], other.products_WM, self.products_WM),
            np.where(chosen_W, other.rank_score_W, self.rank_score_W),
        )


def margin(length: int, change: float) -> int:
    """Hops around a query of so many fingerprints that `refine` may look at."""
    return int(np.ceil(change * (length - 1) / 2)) + 4


def refine(
    query_WMD: np.ndarray,
    windows: Windows,
    start_W: np.ndarray,
    speed_W: np.ndarray,
    change: float,
) -> Refined:
    """The best start and speed of queries of one length near those proposed.

    Args:
        query_WMD: the query of each window, float32.
        start_W, speed_W: as proposed; at another speed the middle of the query keeps its position.
        change: greatest change of the speed; 0 keeps the proposed speeds.
    """
    length = query_WMD.shape[1]
    middle_W = start_W + speed_W * (length - 1) / 2
    similarity_WKM = windows.vectors_WKD @ query_WMD.swapaxes(1, 2)
    speed_W1 = np.asarray(speed_W, float)[:, None]
    plain = _best(similarity_WKM, windows, middle_W, speed_W1, _STEPS_H)
    # Two speeds that are tried differ by half a hop at the ends of the query.
    step = 1 / max(1, length - 1)
    count = min(_MOST_STEPS, int(np.ceil(change / step - 1e-9)))
    if count == 0 or length < 3:
        return plain
    change_R = np.arange(-count, count + 1) * min(step, change / count)
    speed_WR = np.clip(speed_W1 + change_R, 1 - change, 1 + change)
    near_W, speed_W = _roughly_best(similarity_WKM, windows, middle_W, speed_WR)
    finer_WR = speed_W[:, None] + change_R[count + 1] * _FINER
    free = _best(similarity_WKM, windows, near_W, finer_WR, _FINER_STEPS_H)
    gain_W = np.where(speed_W1[:, 0] == 1, _LEAST_GAIN, 0.0)
    return plain.replaced(free, free.rank_score_W > plain.rank_score_W + gain_W)


def _positions(
    middle_W: np.ndarray, speed_WR: np.ndarray, step_H: np.ndarray, length: int
) -> np.ndarray:
    """Where each fingerprint of the query lies, query hops, (tracks, speeds, steps, query)."""
    beside_M = np.arange(length) - (length - 1) / 2
    middle_WRH1 = (middle_W[:, None] + step_H)[:, None, :, None]
    position_WRHM: np.ndarray = middle_WRH1 + speed_WR[:, :, None, None] * beside_M
    return position_WRHM


def _roughly_best(
    similarity_WKM: np.ndarray, windows: Windows, middle_W: np.ndarray, speed_WR: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best middle and speed among whole hops and `speed_WR`."""
    step_H = np.array([-1.0, 0.0, 1.0])
    position = _positions(middle_W, speed_WR, step_H, similarity_WKM.shape[2])
    row = position / windows.stride - windows.first_W[:, None, None, None]
    low = np.floor(row) if windows.stride == 1 else np.rint(row)
    low = low.clip(0, similarity_WKM.shape[1] - 2).astype(np.int32)
    tracks, number_M = np.arange(len(low))[:, None, None, None], np.arange(low.shape[3])
    score = similarity_WKM[tracks, low, number_M]
    if windows.stride == 1:
        part = (row - low).clip(0, 1).astype(np.float32)
        score = (1 - part) * score + part * similarity_WKM[tracks, low + 1, number_M]
        score /= np.sqrt(1 - 2 * (1 - _NEIGHBORS_ALIKE) * part * (1 - part))
    best_W = score.sum(axis=3).reshape(len(middle_W), -1).argmax(axis=1)
    r_W, h_W = np.divmod(best_W, len(step_H))
    return middle_W + step_H[h_W], speed_WR[np.arange(len(r_W)), r_W]


def _best(
    similarity_WKM: np.ndarray,
    windows: Windows,
    middle_W: np.ndarray,
    speed_WR: np.ndarray,
    step_H: np.ndarray,
) -> Refined:
    """The best of all starts and speeds, refined by parabolas through neighboring scores."""
    if windows.stride > 1:  # nothing lies between two fingerprints
        step_H = np.arange(-2.0, 3.0)
    position = _positions(middle_W, speed_WR, step_H, similarity_WKM.shape[2])
    products_WRHM, compared_WRH = _products(similarity_WKM, windows, position)
    covered_WRHM = ~np.isnan(products_WRHM)
    rank_WRH = np.where(covered_WRHM, products_WRHM, 0.0).sum(axis=3) / np.maximum(compared_WRH, 1)
    w = np.arange(len(middle_W))
    inner_WA = rank_WRH[:, :, 1:-1].reshape(len(w), -1)
    r_W, h_W = np.divmod(inner_WA.argmax(axis=1), len(step_H) - 2)
    h_W += 1
    # At a track's edge a neighbor covers less of the query, so its score says nothing.
    covered_3W = [covered_WRHM[w, r_W, h_W + side] for side in (-1, 0, 1)]
    first, last = slice(windows.stride), slice(-windows.stride, None)
    whole_W = np.all([c[:, first].any(1) & c[:, last].any(1) for c in covered_3W], axis=0)
    peak_W = peak_between(*(rank_WRH[w, r_W, h_W + side] for side in (-1, 0, 1)))
    middle_W = middle_W + step_H[h_W] + np.where(whole_W, peak_W, 0.0) * (step_H[1] - step_H[0])
    speed_W = speed_WR[w, r_W]
    if speed_WR.shape[1] > 2:
        inner_W = r_W.clip(1, speed_WR.shape[1] - 2)
        turn_W = peak_between(*(rank_WRH[w, inner_W + side, h_W] for side in (-1, 0, 1)))
        speed_W = speed_WR[w, inner_W] + turn_W * (speed_WR[w, inner_W + 1] - speed_WR[w, inner_W])
    return Refined(
        middle_W - speed_W * (similarity_WKM.shape[2] - 1) / 2,
        speed_W,
        products_WRHM[w, r_W, h_W],
        rank_WRH[w, r_W, h_W],
    )


def _products(
    similarity_WKM: np.ndarray, windows: Windows, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Products with the track at each position, and how many could be compared."""
    tracks, number_M = np.arange(len(position))[:, None, None, None], np.arange(position.shape[3])
    row = position / windows.stride - windows.first_W[:, None, None, None]
    most = similarity_WKM.shape[1] - 1
    if windows.stride > 1:
        near = np.rint(row)
        comparable = np.abs(row - near) * windows.stride <= 0.5 + 1e-9
        near = near.clip(0, most).astype(np.int32)
        inside = windows.inside_WK[tracks, near] & comparable
        product = similarity_WKM[tracks, near, number_M]
        return np.where(inside, product, np.nan), comparable.sum(axis=3)
    low = np.floor(row).clip(0, most - 1).astype(np.int32)
    part = (row - low).clip(0, 1).astype(np.float32)
    inside = windows.inside_WK[tracks, low] | (part == 1)
    inside &= windows.inside_WK[tracks, low + 1] | (part == 0)
    product = (1 - part) * similarity_WKM[tracks, low, number_M]
    product += part * similarity_WKM[tracks, low + 1, number_M]
    product /= _length_between(windows.vectors_WKD, low, part, tracks)
    return np.where(inside, product, np.nan), np.full(position.shape[:3], position.shape[3])


def _length_between(
    vectors_WKD: np.ndarray, low: np.ndarray, part: np.ndarray, tracks: np.ndarray
) -> np.ndarray:
    """Of the mean of two neighboring fingerprints, weighted by nearness; infinite for silence."""
    square_WK = np.einsum("wkd,wkd->wk", vectors_WKD, vectors_WKD)
    cross_WK = np.einsum("wkd,wkd->wk", vectors_WKD[:, :-1], vectors_WKD[:, 1:])
    other = 1 - part
    length = other * other * square_WK[tracks, low] + part * part * square_WK[tracks, low + 1]
    length += 2 * part * other * cross_WK[tracks, low]
    result: np.ndarray = np.sqrt(np.where(length > _SILENCE, length, np.inf))
    return result
