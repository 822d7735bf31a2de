"""How close simulated series are to real ones, from unlabelled series alone.

    python -m benchmarks.realism --real data/US-toy [--sim data/US-sim]

Without --sim a sample is simulated first. Tables compare bands, clouds, acquisition dates and the autocorrelation of
NDVI. The last figure is the ROC AUC of a classifier that tells real series from simulated ones by summary features
(0.5: at chance, 1: always; a classifier two-sample test, Lopez-Paz & Oquab 2017, ICLR).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from datasets.bands import BANDS, BLUE, CLOUD_BRIGHTNESS, DN_SCALE, GREEN, NIR, RED, SWIR1
from datasets.catalog import open_unlabelled
from datasets.simulate import simulate
from datasets.store import SeriesSet
from utils.errors import Parser, exit_cleanly

MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
MONTH_STARTS = np.array([32, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335])
QUANTILES = (1, 5, 25, 50, 75, 95, 99)
GAPS = (2, 3, 5, 7, 8, 10)
LAGS = ((1, 5), (6, 10), (11, 20), (21, 40), (41, 80), (81, 120))
SAMPLE = 6000  # series simulated when no --sim is given


class Observations:
    """All observations of a set of series as flat arrays, with the quantities that the tables need."""

    def __init__(self, series: SeriesSet):
        pieces = [series.store.series(row) for row in series.rows]
        self.lengths = np.array([len(doy) for _, doy in pieces])
        self.reflectance = np.concatenate([bands for bands, _ in pieces]).astype(np.float64) * DN_SCALE  # (M, 10)
        self.doy = np.concatenate([doy for _, doy in pieces]).astype(np.int64)
        self.owner = np.repeat(np.arange(len(pieces)), self.lengths)
        self.cloudy = self.reflectance[:, [BLUE, GREEN, RED]].sum(1) > CLOUD_BRIGHTNESS
        nir, red = self.reflectance[:, NIR], self.reflectance[:, RED]
        self.ndvi = (nir - red) / (nir + red + 1e-8)
        self.month = np.searchsorted(MONTH_STARTS, self.doy, side="right")

    def each(self) -> Iterator[slice]:
        """The slice of each series."""
        ends = np.cumsum(self.lengths)
        return (slice(end - length, end) for end, length in zip(ends, self.lengths, strict=True))


def lag_correlation(data: Observations) -> list[float]:
    """Correlation of clear NDVI with itself some days later, for each of LAGS."""
    pairs: list[list[np.ndarray]] = [[] for _ in LAGS]
    for part in data.each():
        clear = ~data.cloudy[part]
        doy, ndvi = data.doy[part][clear], data.ndvi[part][clear]
        first, second = np.triu_indices(len(doy), 1)
        apart = doy[second] - doy[first]
        for bin_number, (low, high) in enumerate(LAGS):
            chosen = (apart >= low) & (apart <= high)
            pairs[bin_number].append(np.stack([ndvi[first[chosen]], ndvi[second[chosen]]]))
    return [float(np.corrcoef(np.concatenate(both, axis=1))[0, 1]) for both in pairs]


def features(data: Observations) -> np.ndarray:
    """(N, F) summary of each series: quantiles of bands and indices, monthly NDVI, dates, jitter, clouds."""
    rows = []
    for part in data.each():
        values, ndvi, doy, cloudy = data.reflectance[part], data.ndvi[part], data.doy[part], data.cloudy[part]
        clear = ~cloudy if (~cloudy).any() else np.ones(len(doy), dtype=bool)
        wet = (values[:, NIR] - values[:, SWIR1]) / (values[:, NIR] + values[:, SWIR1] + 1e-8)
        monthly = [ndvi[data.month[part] == m].mean() if (data.month[part] == m).any() else np.nan for m in range(12)]
        jitter = np.abs(np.diff(values[clear], axis=0)).mean(0) if clear.sum() > 1 else np.full(len(BANDS), np.nan)
        gaps = np.diff(doy)
        rows.append(
            np.concatenate(
                [
                    np.percentile(values[clear], (5, 50, 95), axis=0).ravel(),
                    np.percentile(ndvi[clear], (5, 25, 50, 75, 95)),
                    np.percentile(wet[clear], (5, 50, 95)),
                    monthly,
                    jitter,
                    [cloudy.mean(), values[:, BLUE].max(), len(doy), gaps.mean(), gaps.max()],
                ]
            )
        )
    return np.array(rows)


def orbit_pattern(data: Observations) -> np.ndarray:
    """(N,) a number for the five-day phases of the orbits that cover each series: equal for series of one tile."""
    patterns = []
    for part in data.each():
        counts = np.bincount(data.doy[part] % 5, minlength=5)
        patterns.append(int(((counts > 2) * 2 ** np.arange(5)).sum()))
    return np.array(patterns)


def discriminability(real: Observations, simulated: Observations, by_tile: bool, seed: int = 111) -> float:
    """Cross-validated ROC AUC of gradient boosting on `features`, with as many series of each kind.

    Real series come from a few tiles in one year, so a classifier can learn the weather of those tiles. With `by_tile`
    it is tested on orbit patterns, hence on tiles, that it was not trained on.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rng = np.random.default_rng(seed)
    count = min(len(real.lengths), len(simulated.lengths))
    chosen = [rng.permutation(len(data.lengths))[:count] for data in (real, simulated)]
    pairs = list(zip((real, simulated), chosen, strict=True))
    table = np.concatenate([features(data)[rows] for data, rows in pairs])
    groups = np.concatenate([orbit_pattern(data)[rows] for data, rows in pairs])
    kind = np.repeat([1, 0], count)
    splitter = StratifiedGroupKFold(4) if by_tile else StratifiedKFold(5, shuffle=True, random_state=seed)
    scores = []
    for train, test in splitter.split(table, kind, groups if by_tile else None):
        model = HistGradientBoostingClassifier(max_iter=100, random_state=seed).fit(table[train], kind[train])
        if len(np.unique(kind[test])) == 2:
            scores.append(roc_auc_score(kind[test], model.predict_proba(table[test])[:, 1]))
    return float(np.mean(scores))


def print_table(title: str, names: list[str], real: np.ndarray, simulated: np.ndarray, compare: str = "ratio") -> None:
    """Print one row a name: real, simulated and their ratio or difference."""
    print(f"\n{title:<34}{'real':>10}{'simulated':>12}{compare:>12}")
    for name, a, b in zip(names, real, simulated, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            figure = np.divide(b, a) if compare == "ratio" else b - a
        print(f"{name:<34}{a:>10.3f}{b:>12.3f}{figure:>12.3f}")


def compare(real: Observations, simulated: Observations) -> None:
    """Print every table."""
    both = (real, simulated)

    def table(title: str, names: list, figure: Callable[[Observations], np.ndarray], by: str = "ratio") -> None:
        print_table(title, list(map(str, names)), *(np.asarray(figure(data)) for data in both), compare=by)

    print(f"real: {len(real.lengths)} series; simulated: {len(simulated.lengths)} series; reflectance 0-1")
    table("mean, all observations", BANDS, lambda d: d.reflectance.mean(0))
    table("standard deviation, all", BANDS, lambda d: d.reflectance.std(0))
    table("mean, clear observations", BANDS, lambda d: d.reflectance[~d.cloudy].mean(0))
    table("standard deviation, clear", BANDS, lambda d: d.reflectance[~d.cloudy].std(0))
    for name in ("blue", "red", "nir", "swir1"):
        band = BANDS.index(name)
        table(f"quantiles of {name}, %", QUANTILES, lambda d, b=band: np.percentile(d.reflectance[:, b], QUANTILES))
    table("quantiles of clear NDVI, %", QUANTILES, lambda d: np.percentile(d.ndvi[~d.cloudy], QUANTILES), "difference")
    table("cloudy fraction", ["year", *MONTHS], _cloudy_fraction, "difference")
    table(
        "observations a series",
        ["min", "mean", "max", "std"],
        lambda d: (d.lengths.min(), d.lengths.mean(), d.lengths.max(), d.lengths.std()),
    )
    table("days to the next observation", [*GAPS, "others", "over 20"], _gap_fractions, "difference")
    table("lag correlation of clear NDVI", [f"{low}-{high} days" for low, high in LAGS], lag_correlation, "difference")
    _correlations(real, simulated)
    print(f"\nreal against simulated, gradient boosting on {features_count()} features of a series (AUC, 0.5 is best)")
    print(f"series drawn at random     {discriminability(real, simulated, by_tile=False):.3f}")
    print(f"tiles unseen in training   {discriminability(real, simulated, by_tile=True):.3f}")


def features_count() -> int:
    """Number of features of a series."""
    return 3 * len(BANDS) + 5 + 3 + 12 + len(BANDS) + 5


def _cloudy_fraction(data: Observations) -> list[float]:
    by_month = [data.cloudy[data.month == m].mean() if (data.month == m).any() else np.nan for m in range(12)]
    return [float(data.cloudy.mean()), *map(float, by_month)]


def _gap_fractions(data: Observations) -> list[float]:
    gaps = np.concatenate([np.diff(data.doy[part]) for part in data.each()])
    fractions = [float((gaps == gap).mean()) for gap in GAPS]
    return [*fractions, 1 - sum(fractions), float((gaps > 20).mean())]


def _correlations(real: Observations, simulated: Observations) -> None:
    print("\ncorrelation between bands, clear observations: simulated minus real")
    difference = np.corrcoef(simulated.reflectance[~simulated.cloudy].T) - np.corrcoef(real.reflectance[~real.cloudy].T)
    print(" " * 8 + "".join(f"{name:>8}" for name in BANDS))
    for name, row in zip(BANDS, difference, strict=True):
        print(f"{name:<8}" + "".join(f"{value:>8.2f}" for value in row))
    print(f"mean absolute difference {np.abs(difference).mean():.3f}")


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m benchmarks.realism", description=__doc__.split("\n")[0])
    parser.add_argument("--real", type=Path, required=True, help="data root with real series")
    parser.add_argument("--sim", type=Path, help="data root of US-sim (default: simulate a sample)")
    parser.add_argument("--year", type=int, default=2019)
    parser.add_argument("--num", type=int, help="simulated series to use (default: all, or 6000 of a sample)")
    args = parser.parse_args(argv)
    real = Observations(open_unlabelled(args.real, args.year))
    if args.sim:
        compare(real, Observations(open_unlabelled(args.sim, args.year, num=args.num)))
        return
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"unlabelled": args.num or SAMPLE, "train": 0, "valid": 0, "evaluation": 0}
        root = simulate(Path(folder) / "US-sim", **sizes, years=(args.year,))
        compare(real, Observations(open_unlabelled(root, args.year)))


if __name__ == "__main__":
    main()
