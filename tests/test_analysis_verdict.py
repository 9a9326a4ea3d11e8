"""The verdict: every limit from both sides, the numbers behind it against what they are defined as, and the page."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import build, build_phases, smooth_field, smooth_phase

from mcrdist.analysis import evidence, imprint, verdict, write_report
from mcrdist.analysis.material import phases
from mcrdist.analysis.verdict import Finding, Limits
from mcrdist.analysis.volume.table import LINEAL
from mcrdist.errors import InputError
from mcrdist.store import Run

UP, DOWN = math.inf, -math.inf


def at(limits: Limits) -> list[tuple[float, str]]:
    """Figures on and just beyond both limits, with the tone of each."""
    return [
        (0.0, "good"),
        (limits.good, "good"),
        (np.nextafter(limits.good, UP), "caution"),
        (limits.fair, "caution"),
        (np.nextafter(limits.fair, UP), "bad"),
    ]


@pytest.mark.parametrize(
    ("limits", "judge"),
    [
        (verdict.S2, lambda value: verdict.planes([0.0, value, 0.0])),
        (verdict.VARIATION, lambda value: verdict.boundary([0.0, value])),
        (verdict.OTHER, lambda value: verdict.others({"gram": value, "s3": 0.0})),
        (verdict.GREY, verdict.decided),
        (verdict.IMPRINT, lambda value: verdict.imprint(value, 0.0)),
        (verdict.APART, lambda value: verdict.unprescribed([("a", 0.0), ("b", value)])),
        (verdict.REPETITION, verdict.repetition),
        (verdict.SAMPLING, verdict.sampling),
        (verdict.SCATTER, lambda value: verdict.representative({"specific surface": value, "x": 0.0})),
    ],
)
def test_tones_change_at_the_limits(limits: Limits, judge: Any) -> None:
    for value, tone in at(limits):
        found: Finding = judge(float(value))
        assert found.tone == tone, value
        assert found.limits and found.sentence.endswith(".")


@pytest.mark.parametrize(
    ("got", "tone"),
    [(0.5, "good"), (0.5049, "good"), (0.4949, "caution"), (0.5149, "caution"), (0.48, "bad")],
)
def test_volume_fraction(got: float, tone: str) -> None:
    found = verdict.fraction(0.5, got)
    assert found.tone == tone and f"{got:.4f}" in found.sentence


def test_a_phase_that_nobody_wanted() -> None:
    assert verdict.fraction(0.0, 0.0).tone == "good" and verdict.fraction(0.0, 0.1).tone == "bad"


@pytest.mark.parametrize(
    ("length", "side", "tone"),
    [(10, 40, "good"), (10, 39, "caution"), (10, 20, "caution"), (10, 19, "bad"), (17, 1000, "caution")],
)
def test_the_volume_must_be_wide(length: int, side: int, tone: str) -> None:
    found = verdict.window(length, 16, side)
    assert found.tone == tone
    assert ("has not settled within the window of 16 voxels" in found.sentence) == (length > 16)


@pytest.mark.parametrize(
    ("own", "beside", "tone"),
    [(1.0, 1.0, "good"), (1.09, 1.0, "good"), (1.2, 1.0, "caution"), (2.0, 2.6, "bad"), (2.6, 2.5, "good")],
)
def test_isotropy_is_measured_by_the_micrograph(own: float, beside: float, tone: str) -> None:
    assert verdict.isotropy(own, beside).tone == tone


def test_chance_excuses_an_imprint() -> None:
    assert verdict.imprint(0.4, 0.01).tone == "bad"
    assert verdict.imprint(0.4, 0.2).tone == "good"
    assert verdict.imprint(0.0, 0.2).tone == "good"


def test_connectivity_is_a_fact_and_no_praise() -> None:
    found = verdict.connectivity({"z": 0.97, "y": 0.0, "x": 0.5}, 0.97)
    assert found.tone == "note" and "along z (97.0\u00a0% of it), x (50.0\u00a0% of it);" in found.sentence
    assert "along no axis" in verdict.connectivity(dict.fromkeys("zyx", 0.0), 0.1).sentence


def test_spread_of_several_micrographs() -> None:
    assert verdict.within_spread(0.02, 0.02).tone == "good"
    assert verdict.within_spread(0.03, 0.02).tone == "note"


def test_costs_of_rounding_are_named() -> None:
    assert "Rounding costs accuracy" in verdict.planes([0.03], [0.01]).sentence
    assert "Rounding costs" not in verdict.planes([0.011], [0.01]).sentence
    assert "Rounding costs" not in verdict.planes([0.004], [0.001]).sentence  # too little to mention


def test_an_error_may_be_the_micrographs_own() -> None:
    assert "characterize" in verdict.planes([0.2, 0.2, 0.2]).sentence
    assert "characterize" not in verdict.planes([0.001, 0.001, 0.001]).sentence
    assert "characterize" not in verdict.planes([0.2]).sentence  # a single plane can have any micrograph's
    assert "rounding decides them" in verdict.decided(0.1).sentence
    assert "decides" not in verdict.decided(0.001).sentence


def test_what_was_made() -> None:
    made = verdict.made([64] * 3, ["some/where/a.tif", "from x/b.tif to c.tif, t = 0.5"], False).sentence
    assert "A periodic volume of 64³ voxels" in made
    assert made.endswith("the statistics of a.tif, from x/b.tif to c.tif, t = 0.5.")
    assert "A periodic plane of 32² voxels" in verdict.made([1, 32, 32], [], False).sentence
    assert "Gaussian random field" in verdict.made([64] * 3, ["a.tif"], True).sentence


def test_how_a_run_ended() -> None:
    assert verdict.ended("complete", "relative decrease").tone == "good"
    assert verdict.ended("complete", "iteration cap").tone == "note"
    assert verdict.ended("interrupted", "relative decrease").tone == "open"
    assert verdict.ended("None", None).tone == "open"


GOOD, CARE, BAD, OPEN = (Finding(tone, ".") for tone in ("good", "caution", "bad", "open"))


@pytest.mark.parametrize(
    ("found", "tone", "said"),
    [
        ([GOOD, Finding("note", ".")], "good", "Yes, as far as these figures tell"),
        ([GOOD, CARE], "caution", "With care.*mind the reservation"),
        ([CARE, CARE, GOOD], "caution", "mind the 2 reservations"),
        ([CARE, BAD], "bad", "Not before you know the reason of the warning"),
        ([BAD, OPEN], "open", "Not as it is"),
    ],
)
def test_may_it_be_used(found: list[Finding], tone: str, said: str) -> None:
    last = verdict.usable(found, False, False, "out")
    assert last.tone == tone and re.search(said, last.sentence)
    assert ("mcrdist analyze run.dir=out" in last.sentence) == (tone != "open")
    assert "mcrdist analyze" not in verdict.usable(found, False, True, "out").sentence
    if tone != "open":
        assert "no optimiser has touched" in verdict.usable(found, True, False, "out").sentence


def test_headlines() -> None:
    close, far = verdict.planes([0.01]), verdict.planes([0.2])
    assert verdict.headline([close], close) == ("good", "The planes match the micrograph closely.")
    assert verdict.headline([close, CARE], close)[1].endswith("closely; a reservation below.")
    assert verdict.headline([close, CARE, CARE], close)[1].endswith("closely; reservations below.")
    assert verdict.headline([close, CARE, BAD], close) == (
        "bad",
        "The planes match the micrograph closely; a warning below.",
    )
    assert verdict.headline([far, CARE], far) == ("bad", "The planes differ visibly from the micrograph.")
    assert verdict.headline([GOOD], None) == ("open", "No error has been measured for this volume.")
    # However good the figures are: nobody should take a stopped run for a finished one.
    assert verdict.headline([close, OPEN], close)[1] == "The run was interrupted: this is how far it came."


# The numbers --------------------------------------------------------------------------------------------------


def test_blocks_are_noticed_and_smooth_fields_are_not() -> None:
    smooth = smooth_phase((64, 64, 64), 3, 0.4, 0).astype(np.uint8)
    coarse = smooth_phase((32, 32, 32), 1.5, 0.4, 0).astype(np.uint8)
    blocks = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)

    def figures(labels: np.ndarray) -> tuple[float, float]:
        stacks = {axis: np.moveaxis(labels, k, 0) for k, axis in enumerate("zyx")}
        found = imprint.profiles(stacks)
        return imprint.busiest(found) - 1, imprint.busiest(found, imprint.CHANCE) - 1

    assert figures(blocks)[0] == pytest.approx(1.0, abs=0.15)  # every second lattice plane has all of them
    assert verdict.imprint(*figures(blocks)).tone == "bad"
    assert verdict.imprint(*figures(smooth)).tone == "good"


def test_profiles_count_boundaries() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (12, 13, 14), dtype=np.uint8)
    stacks = {axis: np.moveaxis(labels, k, 0) for k, axis in enumerate("zyx")}
    found = imprint.profiles(stacks)
    for k, axis in enumerate("zyx"):
        inside = tuple(other for other in range(3) if other != k)
        np.testing.assert_allclose(found[axis], (np.diff(labels.astype(int), axis=k) != 0).mean(inside))
    assert imprint.busiest({"z": np.ones(3)}) == 1.0  # too few planes to tell


def test_integral_range_tells_the_variance_of_means() -> None:
    """Many images of one material: the scatter of their fractions is what one image's S2 says of it."""
    from fake_run import two_point

    tall = smooth_field((512, 512), (2, 2), 0.4, 9) > 0.5
    cells = tall.reshape(16, 32, 16, 32).mean((1, 3))
    s2 = two_point(tall[None].astype(float), 12, True)[0]
    share = tall.mean()
    expected = math.sqrt(share * (1 - share) * evidence.integral_range(s2) / 32**2)
    assert cells.std() == pytest.approx(expected, rel=0.2)


def test_white_noise_has_an_integral_range_of_a_pixel() -> None:
    s2 = np.full((7, 4), 0.25)
    s2[3, 0] = 0.5
    assert evidence.integral_range(s2) == pytest.approx(1.0)


def analysis(path: Path, **values: float) -> dict[str, Any]:
    """Results of an analysis that match the micrograph, but for `values`."""
    rows = []
    for statistic in ("mean chord", "integral range of S2", LINEAL):
        for axis in "zyx":
            error = statistic.startswith("E(")
            value = values.get(f"{statistic.split('(')[-1][:4]}_{axis}", 0.01 if error else 5.0)
            rows.append((statistic, axis, value, None if error else 5.0))
    rows += [("largest correlation at long range", axis, values.get("far", 0.02), None) for axis in "zyx"]
    rows += [("share that percolates", axis, values.get("through", 0.9), None) for axis in "zyx"]
    rows.append(("share of the largest cluster", "", 0.9, None))
    content = {
        "rows": [
            {
                "phase": 1,
                "statistic": s,
                "direction": d,
                "value": v,
                "micrograph": m,
                "unit": "",
                "prescribed": False,
            }
            for s, d, v, m in rows
        ],
        "phases": {
            "1": {
                "errors": {},
                "lineal_path": {axis: [0.4, 0.3] for axis in "zyx"},
                "lineal_path_micrograph": {},
            }
        },
        "periodic": True,
    }
    path.mkdir(exist_ok=True)
    (path / "analysis.json").write_text(json.dumps(content), encoding="utf-8")
    return content


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return build(
        tmp_path_factory.mktemp("runs") / "run",
        (32, 36, 40),
        width=(2, 2, 2),
        lags=8,
        levels=1,
        micrograph=200,
    )


def tones(run: Run, content: dict[str, Any] | None = None) -> dict[str, str]:
    material = phases(run.summary, run.targets)
    found = evidence.judge(run, run.volume, material, content)
    return {finding.sentence: finding.tone for answer in found.answers for finding in answer.findings}


@pytest.mark.parametrize(
    ("values", "said", "tone"),
    [
        ({}, "Of 6 statistics.*, 6 are within", "good"),
        ({"mean_y": 6.0}, "5 are within.*the furthest, mean chord along y, is 20.0", "caution"),
        ({"line_x": 0.3}, "the furthest, lineal path along x, is 30.0", "bad"),
        ({}, "S₂ reaches 1.00 times as far.*, 1.00 times", "good"),
        ({"inte_z": 6.0}, "S₂ reaches 1.20 times", "caution"),
        ({"far": 0.5}, "Something repeats at long range", "bad"),
        ({"through": 0.0}, "crosses the volume along no axis", "note"),
    ],
)
def test_what_was_measured_is_judged(
    run: Run, tmp_path: Path, values: dict[str, float], said: str, tone: str
) -> None:
    found = tones(run, analysis(tmp_path / "analysis", **values))
    (own,) = [t for sentence, t in found.items() if re.search(said, sentence)]
    assert own == tone


def test_without_an_analysis_its_command_is_named(run: Run) -> None:
    found = tones(run)
    assert any("mcrdist analyze run.dir=run" in sentence for sentence in found)
    assert not any("long range" in sentence for sentence in found)
    assert any("shortest edge is" in sentence for sentence in found)
    assert any("within ±" in sentence for sentence in found)


def test_several_phases_are_named(tmp_path: Path) -> None:
    found = tones(build_phases(tmp_path / "three"))
    fractions = [sentence for sentence in found if sentence.startswith("The volume fraction of phase")]
    assert len(fractions) == 3
    assert any("met with errors of: S₂ at 1/4 resolution" in sentence for sentence in found)


def test_the_page_asks_and_answers(run: Run) -> None:
    analysis(run.path / "analysis")
    page = write_report(run.path).read_text(encoding="utf-8")
    for question in ("What did I get?", "How good is it?", "May I use it?"):
        assert f"<h2>{question}</h2>" in page
    assert "Good up to 2\u00a0%, fair up to 5\u00a0%, in the worst direction." in page
    # A shape of its own for every tone, for those who print in grey.
    shapes = {
        tone: re.search(rf'<svg class="icon {tone}".*?>(.*?)</svg>', page, re.S) for tone in ("good", "note")
    }
    assert all(shapes.values()) and len({match[1] for match in shapes.values() if match}) == 2
    (run.path / "analysis" / "analysis.json").write_text('{"rows": [{}], "phases": {}, "periodic": true}')
    with pytest.raises(InputError, match="expected the results of mcrdist analyze"):
        write_report(run.path)
