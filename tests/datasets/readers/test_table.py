"""Reading tables of series: every layout gives the same series, and what cannot be used is named."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.readers import table_files, table_scan
from datasets.readers.table import Columns, Dates, open_table
from datasets.readers.table_scan import read_series, scan, settle
from tests.support.tables import CODES, Observed, long_table, save, some_observed, wide_table

DAYS = [date(2019, 4, 3), date(2019, 5, 3), date(2019, 7, 18)]
COLUMNS = Columns("id", "crop")


NO_DATES = Dates()


def read(file, dates=NO_DATES, columns=COLUMNS, folder=None, nodata=()) -> list[Observed]:
    """All series of a file, as they were written."""
    table = open_table(file, columns, dates, nodata)
    found = scan(table)
    table, _ = settle(table, found)
    result = []
    for piece in read_series(table, found, folder or file.parent):
        ends = np.cumsum(piece.lengths)
        for i, (end, length) in enumerate(zip(ends, piece.lengths, strict=True)):
            rows = slice(end - length, end)
            days = piece.days[rows].tolist()
            label = piece.index["code"][i] if "code" in piece.index else ""
            result.append(Observed(piece.index["id"][i], label, piece.bands[rows] * table.scale, days))
    return result


def same(found: list[Observed], expected: list[Observed]) -> bool:
    return len(found) == len(expected) and all(
        (a.id, a.label, a.days) == (b.id, b.label, b.days) and np.allclose(a.bands, b.bands, equal_nan=True)
        for a, b in zip(found, expected, strict=True)
    )


BAND_NAMES = [
    BANDS,
    CODES,
    [code.replace("B0", "B") for code in CODES],
    [f"S2-L2A-{code}" for code in CODES],
    [code.lower() for code in CODES],
    [band.capitalize() for band in BANDS],
]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("names", BAND_NAMES, ids=lambda names: names[0])
def test_long_tables_by_any_names_of_the_bands(tmp_path, ending, names):
    series = some_observed(3, DAYS)
    assert same(read(save(long_table(series, names), tmp_path / f"t.{ending}")), series)


WIDE = {
    "dates": (lambda b, s: f"{CODES[b].replace('B0', 'B')}_{DAYS[s]:%Y%m%d}", Dates()),
    "dates first": (lambda b, s: f"{DAYS[s]:%Y%m%d}T105031_T31UFS_{CODES[b]}", Dates()),
    "iso dates": (lambda b, s: f"{BANDS[b]}_{DAYS[s]}", Dates()),
}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("kind", WIDE)
def test_wide_tables_with_dates_in_their_names(tmp_path, ending, kind):
    name, dates = WIDE[kind]
    series = some_observed(3, DAYS)
    assert same(read(save(wide_table(series, name), tmp_path / f"t.{ending}"), dates), series)


STEPS = {
    "steps": lambda b, s: f"OPTICAL-{CODES[b]}-ts{s}-10m",
    "numbers": lambda b, s: f"{BANDS[b]}_{s}" if s else BANDS[b],
    "numbers first": lambda b, s: f"{s}_{CODES[b]}",
}


@pytest.mark.parametrize("kind", STEPS)
def test_wide_tables_with_numbered_steps_are_dated_at_the_middle_of_each_period(tmp_path, kind):
    months = [date(2019, 3, 16), date(2019, 4, 16), date(2019, 5, 16)]
    series = some_observed(2, months)
    file = save(wide_table(series, STEPS[kind]), tmp_path / "t.csv")
    assert same(read(file, Dates("2019-03-01", "month")), series)
    ten_days = [one._replace(days=[date(2019, 3, 6), date(2019, 3, 16), date(2019, 3, 26)]) for one in series]
    assert same(read(file, Dates("2019-03-01", "10D")), ten_days)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_says_when_the_steps_of_each_row_begin(tmp_path, ending):
    series = some_observed(2, [date(2018, 12, 16), date(2019, 1, 16), date(2019, 2, 15)])
    series[1] = series[1]._replace(days=[date(2019, 5, 16), date(2019, 6, 16), date(2019, 7, 16)])
    table = wide_table(series, STEPS["steps"]).assign(start_date=["2018-12-01", "2019-05-01"])
    assert same(read(save(table, tmp_path / f"t.{ending}"), Dates("start_date", "month")), series)


def test_steps_are_in_the_order_of_their_numbers_and_not_of_their_columns(tmp_path):
    series = some_observed(2, [date(2019, 1, 1) + timedelta(days=10 * k + 5) for k in range(12)])
    table = wide_table(series, STEPS["steps"])
    table = table[[*table.columns[:2], *sorted(table.columns[2:], reverse=True)]]  # ts9 … ts2, ts11, ts10, ts1, ts0
    assert same(read(save(table, tmp_path / "t.csv"), Dates("2019-01-01", "10D")), series)


def test_the_dates_of_a_long_table_may_begin_a_step(tmp_path):
    series = some_observed(1, [date(2019, 3, 1), date(2019, 4, 1)])
    file = save(long_table(series), tmp_path / "t.csv")
    assert read(file, Dates(step="month"))[0].days == [date(2019, 3, 16), date(2019, 4, 16)]


@pytest.mark.parametrize(
    "dates",
    [
        ["2019-04-03", "2019-05-03T10:50:31Z", "2019-07-18 00:00:00"],
        ["20190403", "20190503", "20190718"],
        [20190403, 20190503, 20190718],
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_dates_in_any_iso_form(tmp_path, dates, ending):
    series = some_observed(1, DAYS)
    table = long_table(series).assign(date=dates)
    assert same(read(save(table, tmp_path / f"t.{ending}")), series)


@pytest.mark.parametrize("kind", ["datetime64[us]", "datetime64[ns, UTC]", "date"])
def test_dates_of_parquet(tmp_path, kind):
    series = some_observed(1, DAYS)
    dates = DAYS if kind == "date" else pd.to_datetime(pd.Series(DAYS)).astype(kind) if "UTC" not in kind else (
        pd.to_datetime(pd.Series(DAYS)).dt.tz_localize("UTC")
    )  # fmt: skip
    table = long_table(series).drop(columns="date").assign(timestamp=dates)
    assert same(read(save(table, tmp_path / "t.parquet")), series)


def test_days_of_year(tmp_path):
    series = some_observed(2, DAYS)
    table = long_table(series).assign(doy=[93, 123, 199] * 2).drop(columns="date")
    assert same(read(save(table, tmp_path / "t.csv"), Dates(year=2019)), series)


def test_days_of_year_that_fall_once_begin_in_the_year_before(tmp_path):
    series = some_observed(2, [date(2018, 11, 6), date(2019, 1, 2), date(2019, 7, 18)])
    table = long_table(series).assign(doy=[310, 2, 199] * 2).drop(columns="date")
    assert same(read(save(table, tmp_path / "t.csv"), Dates(year=2019)), series)


def test_days_of_year_in_no_order_are_of_one_year(tmp_path):
    series = some_observed(2, DAYS)
    table = long_table(series).assign(doy=[93, 123, 199] * 2).drop(columns="date")
    table = table.iloc[[1, 0, 2, 5, 4, 3]]  # the second series is in no order that a season can have
    found = read(save(table, tmp_path / "t.csv"), Dates(year=2019))
    assert [day.year for one in found for day in one.days] == [2019] * 6


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    cells=st.integers(13, 100),  # 1 to 7 rows
    rows=st.integers(4, 20),
    seed=st.integers(0, 99),
    shuffled=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_series_do_not_depend_on_batches_or_the_order_of_rows(tmp_path_factory, lengths, cells, rows, seed, shuffled):
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(seed)
    series = [
        Observed(f"p{i}", "corn", rng.integers(1, 9000, (n, 10)) + 0.0, [DAYS[0] + timedelta(days=k) for k in range(n)])
        for i, n in enumerate(lengths)
    ]
    table = long_table(series)
    if shuffled:
        table = table.sample(frac=1, random_state=seed)
    file = save(table, folder / "t.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_files, "CELLS", cells)
        patch.setattr(table_scan, "ROWS", rows)
        found = read(file, folder=folder)
    ordered = [sorted_by_day(one) for one in found]
    assert same(sorted(ordered), sorted(series, key=lambda one: one.id))
    if not shuffled or len(table) <= rows:
        assert [one.id for one in found] == list(dict.fromkeys(table["id"]))  # in the order of the file
    assert [path.name for path in folder.iterdir()] == ["t.csv"]


def sorted_by_day(one: Observed) -> Observed:
    order = np.argsort(one.days, kind="stable")
    return one._replace(bands=one.bands[order], days=[one.days[i] for i in order])


def test_a_table_in_disorder_is_found_out(tmp_path):
    series = some_observed(40, DAYS)
    table = long_table(series)
    assert scan(open_table(save(table, tmp_path / "a.csv"), COLUMNS, NO_DATES)).together
    table.loc[len(table) - 1, "id"] = "p0"
    assert not scan(open_table(save(table, tmp_path / "b.csv"), COLUMNS, NO_DATES)).together


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_missing_values_in_all_their_forms(tmp_path, ending):
    series = some_observed(1, DAYS)
    file = save(long_table(series), tmp_path / f"t.{ending}")
    table = long_table(series)
    table.loc[0, "blue"], table.loc[1, "nir"], table.loc[2, list(BANDS)] = 65535, np.nan, 0
    table.loc[1, "swir2"] = -9999
    file = save(table, tmp_path / f"t.{ending}")
    lost = np.isnan(read(file, nodata=(-9999.0,))[0].bands)
    assert np.argwhere(lost).tolist() == [[0, 0], [1, 6], [1, 9], *([2, band] for band in range(10))]


def test_reflectance_becomes_digital_numbers(tmp_path):
    series = some_observed(2, DAYS)
    table = long_table([one._replace(bands=one.bands / 10000) for one in series])
    assert same(read(save(table, tmp_path / "t.csv")), series)
    table, notes = settle_of(tmp_path / "t.csv")
    assert table.scale == pytest.approx(1e4) and "reflectance" in notes[0]


def test_fractions_of_digital_numbers_are_no_reflectance(tmp_path):
    series = [one._replace(bands=one.bands + 0.5) for one in some_observed(2, DAYS)]
    assert same(read(save(long_table(series), tmp_path / "t.csv")), series)


def settle_of(file):
    table = open_table(file, COLUMNS, NO_DATES)
    return settle(table, scan(table))


@pytest.mark.parametrize(("lost", "stands"), [("nir", "red4"), ("red4", "nir")])
@pytest.mark.parametrize("how", ["no column", "all 65535", "all blank"])
def test_b8_and_b8a_stand_in_for_each_other(tmp_path, lost, stands, how):
    series = some_observed(2, DAYS)
    table = long_table(series)
    table = table.drop(columns=lost) if how == "no column" else table.assign(**{lost: 65535 if "6" in how else np.nan})
    file = save(table, tmp_path / "t.csv")
    settled, notes = settle_of(file)
    assert settled.replaced == lost and f"({lost}) is missing" in notes[0] and f"({stands}) stands in" in notes[0]
    expected = [one._replace(bands=one.bands.copy()) for one in series]
    for one in expected:
        one.bands[:, BANDS.index(lost)] = one.bands[:, BANDS.index(stands)]
    assert same(read(file), expected)


def test_ids_and_labels_are_kept_as_they_are_written(tmp_path):
    series = some_observed(3, DAYS)
    table = long_table(series).assign(id=np.repeat(["007", "8.50", " 9 "], 3), crop=["1"] * 6 + [""] * 3)
    found = read(save(table, tmp_path / "t.csv"))
    assert [(one.id, one.label) for one in found] == [("007", "1"), ("8.50", "1"), ("9", "")]
    table = table.assign(id=np.repeat([3, 4, 5], 3), crop=[1.0] * 6 + [np.nan] * 3)
    found = read(save(table, tmp_path / "t.parquet"))
    assert [(one.id, one.label) for one in found] == [("3", "1"), ("4", "1"), ("5", "")]


# ---- what cannot be used


LONG = long_table(some_observed(2, DAYS))
NUMBERED = wide_table(some_observed(2, DAYS), STEPS["steps"])


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("nir", "cloudy", "nir is 'cloudy'; expected a number"),
        ("date", "03/05/2019", "date is '03/05/2019'; expected a date such as 2019-05-03"),
        ("date", "2019-02-30", "date is '2019-02-30'; expected a date"),
        ("date", "", "date is blank; expected a date"),
        ("id", "", "id is blank; expected an id of the series"),
    ],
)
def test_a_bad_cell_is_named_by_file_row_and_value(tmp_path, ending, column, value, words):
    cells = LONG[column].astype(str).tolist()
    cells[4] = value
    file = save(LONG.assign(**{column: cells}), tmp_path / f"t.{ending}")
    place = "row 5" if ending == "parquet" else "line 6"
    with pytest.raises(DataError, match=f"t.{ending}: {place}: {words}") as caught:
        read(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "dates", "columns", "words"),
    [
        (LONG, Dates(), Columns("pixel"), "no column 'pixel' for --id; it has id, crop, date, blue, green"),
        (LONG, Dates(), Columns("id", "class"), "no column 'class' for --label; it has id, crop"),
        (LONG, Dates(), Columns("id", x="lon"), "no column 'lon' for --x; it has id"),
        (LONG.drop(columns="swir1"), Dates(), COLUMNS, r"no column for B11 \(swir1\); expected all ten .*found B02"),
        (LONG.drop(columns=["nir", "red4"]), Dates(), COLUMNS, r"no column for B08 \(nir\), B8A \(red4\)"),
        (LONG.assign(green=65535), Dates(), COLUMNS, r"no value in any row for B03 \(green\)"),
        (LONG.assign(B2=1), Dates(), COLUMNS, r"columns 'blue' and 'B2' are both B02 \(blue\)"),
        (LONG.drop(columns="date"), Dates(), COLUMNS, "no column of dates .*--date; it has id, crop, blue"),
        (LONG.assign(doy=5).drop(columns="date"), Dates(), COLUMNS, "doy is a day of year; say of which year"),
        (LONG.assign(doy=0).drop(columns="date"), Dates(year=2019), COLUMNS, "line 2: doy is '0'; expected .*1 to 366"),
        (LONG, Dates("2019-01-01", "month"), COLUMNS, "a date in every row; leave --start out"),
        (LONG, Dates(step="fortnight"), COLUMNS, "--step fortnight: expected month, or days"),
        (LONG[:0], Dates(), COLUMNS, "no rows below the names"),
        (NUMBERED, Dates(), COLUMNS, r"3 steps without dates \(OPTICAL-B02-ts0-10m …\); say when"),
        (NUMBERED, Dates("2019-01-01"), COLUMNS, "3 steps without dates"),
        (NUMBERED, Dates("begin", "month"), COLUMNS, "--start begin is neither a date such as .* nor a column; it has"),
        (NUMBERED, Dates("2019-13-01", "month"), COLUMNS, "--start 2019-13-01: expected a date"),
        (NUMBERED.drop(columns="OPTICAL-B11-ts1-10m"), Dates("2019-01-01", "month"), COLUMNS,
         r"B11 \(swir1\) has no column for step 1, which other bands have"),
        (NUMBERED.assign(B8_20190503=1), Dates("2019-01-01", "month"), COLUMNS, "dates, steps or neither"),
        (wide_table(some_observed(1, DAYS), WIDE["dates"][0]), Dates("2019-01-01", "month"), COLUMNS,
         "has dates in the names of its columns; leave --start and --step out"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used(tmp_path, table, dates, columns, words):
    file = save(table, tmp_path / "t.csv")
    with pytest.raises(DataError, match=words) as caught:
        read(file, dates, columns)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(DataError, match="none.csv: no such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="t.parquet: cannot be read as Parquet"):
        read(tmp_path / "t.parquet")
    (tmp_path / "t.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="t.csv.gz: cannot be read as CSV"):
        read(tmp_path / "t.csv.gz")
    text = LONG.to_csv(index=False).splitlines()
    (tmp_path / "t.csv").write_text("\n".join([text[0], *(f"{line},1" for line in text[1:])]))
    with pytest.raises(DataError, match="t.csv: line 2 has more cells than line 1 has column names"):
        read(tmp_path / "t.csv")
    (tmp_path / "u.csv").write_text("\n".join([*text[:3], f"{text[3]},1"]))
    with pytest.raises(DataError, match="u.csv: cannot be read as CSV .*line 4, saw 14"):
        read(tmp_path / "u.csv")
