import re

from benchmarks import prepare


def test_extraction_keeps_what_has_data_and_is_compared_with_plain_reads(capsys):
    prepare.main("--sides 40 80 --dates 3 --rounds 1".split())
    lines = capsys.readouterr().out.splitlines()
    rates = r"extraction (\S+) M observations/s \(1 process\(es\), (\S+) kept\), plain reads (\S+) M/s, ratio (\S+) "
    for line, processor, kept in zip(lines[0:4:2], lines[1:4:2], ("4,320", "17,280"), strict=True):
        ours, found, plain, ratio = re.search(rates, line).groups()
        assert found == kept  # 9 of 10 pixels, on 3 dates
        assert abs(float(ours) / float(plain) - float(ratio)) < 0.05 + 0.1 * float(ratio)
        assert float(processor.removeprefix("    of processor time: ratio ")) > 0
    assert lines[4].startswith("area x 4: time x ") and lines[5].startswith("area x 4: peak memory ")
