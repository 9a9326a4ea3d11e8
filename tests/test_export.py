"""Exports: read back by the libraries that their users use, in slabs, and nothing overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from fake_run import build, build_phases, smooth_field

import mcrdist
from mcrdist.config import FORMATS, VolumeSourceConfig
from mcrdist.config.micrograph import UNITS
from mcrdist.errors import InputError
from mcrdist.export.surface import Welder, pieces
from mcrdist.imagefile import MICROMETRES
from mcrdist.store import Run, source
from mcrdist.store.source import open_source

SHAPE = (20, 24, 28)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "odd"
    return build(path, SHAPE, width=(2, 2, 2), lags=5, levels=2, micrograph=32, pixel_size=0.25)


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three planes of labels at a time, so that the volume has several slabs."""
    monkeypatch.setattr(source, "SLAB", 3 * SHAPE[1] * SHAPE[2])


def exported(run: Run, form: str, where: Path, **volume: Any) -> Path:
    """The main file."""
    suffix = {"tiff": "tif", "hdf5": "dream3d", "abaqus": "inp", "gmsh": "msh"}.get(form, form)
    path = where / f"a.{suffix}"
    files = mcrdist.export(run={"dir": run.path}, format=form, output={"path": path}, volume=volume)
    assert files[0] == path and all(file.is_file() for file in files)
    assert sorted(where.iterdir()) == sorted(files)
    return path


@pytest.mark.usefixtures("small_slabs")
def test_tiff(run: Run, tmp_path: Path) -> None:
    with tifffile.TiffFile(exported(run, "tiff", tmp_path)) as tiff:
        assert np.array_equal(tiff.asarray(), run.phase)
        assert tiff.imagej_metadata is not None
        assert tiff.imagej_metadata["spacing"] == 0.25 and tiff.imagej_metadata["unit"] == "um"
        assert tiff.imagej_metadata["max"] == 1.0
        across = tiff.pages.first.tags.valueof("XResolution")
        assert across[0] / across[1] == pytest.approx(4)


def test_large_or_wide_labels_become_ome_tiff(tmp_path: Path) -> None:
    labels = np.arange(4 * 5 * 6, dtype=np.int32).reshape(4, 5, 6)
    np.save(tmp_path / "wide.npy", labels)
    volume = {"path": tmp_path / "wide.npy", "voxel_size": [3, 2, 1], "unit": "nm"}
    (path,) = mcrdist.export(volume=volume, format="tiff")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome and tiff.is_bigtiff and np.array_equal(tiff.asarray(), labels)
    again = open_source(VolumeSourceConfig(path=str(path)))
    assert again.voxel_size == pytest.approx((3e-3, 2e-3, 1e-3)) and again.unit == "micrometer"
    assert np.array_equal(again.read(0, 4), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])  # ImageJ's, OME-TIFF
@pytest.mark.parametrize("unit", UNITS)
def test_tiff_in_any_unit(unit: str, dtype: type, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 6), dtype))
    volume = {"path": tmp_path / "a.npy", "voxel_size": [3, 2, 1], "unit": unit}
    (path,) = mcrdist.export(volume=volume, format="tiff")
    again = open_source(VolumeSourceConfig(path=str(path)))
    assert again.voxel_size == pytest.approx([n * MICROMETRES[unit] for n in (3, 2, 1)])


@pytest.mark.usefixtures("small_slabs")
def test_npy_and_raw(run: Run, tmp_path: Path) -> None:
    assert np.array_equal(np.load(exported(run, "npy", tmp_path)), run.phase)
    (tmp_path / "field").mkdir()
    field = np.load(exported(run, "npy", tmp_path / "field", image="field"))
    assert field.dtype == np.float32 and np.array_equal(field, run.field)
    (tmp_path / "raw").mkdir()
    path = exported(run, "raw", tmp_path / "raw")
    meaning = json.loads(path.with_suffix(".json").read_text())
    raw = np.fromfile(tmp_path / "raw" / meaning["file"], meaning["dtype"]).reshape(meaning["shape"])
    assert np.array_equal(raw, run.phase)
    assert meaning["voxel_size"] == [0.25] * 3 and meaning["unit"] == "micrometer"


@pytest.mark.usefixtures("small_slabs")
def test_vti_in_paraview_and_damask(run: Run, tmp_path: Path) -> None:
    pyvista, damask = pytest.importorskip("pyvista"), pytest.importorskip("damask")
    path = exported(run, "vti", tmp_path)
    image = pyvista.read(path)
    assert image.dimensions == (29, 25, 21) and image.spacing == (0.25,) * 3
    assert np.array_equal(image.cell_data["material"].reshape(SHAPE), run.phase)
    grid = damask.GeomGrid.load(path)
    assert np.array_equal(grid.material.T, run.phase) and np.allclose(grid.size, (7, 6, 5))
    (tmp_path / "field").mkdir()
    field = pyvista.read(exported(run, "vti", tmp_path / "field", image="field"))
    assert np.array_equal(field.cell_data["field"].reshape(SHAPE), run.field)


@pytest.mark.usefixtures("small_slabs")
def test_hdf5_in_damask_and_by_xdmf(run: Run, tmp_path: Path) -> None:
    damask, pyvista = pytest.importorskip("damask"), pytest.importorskip("pyvista")
    path = exported(run, "hdf5", tmp_path)
    grid = damask.GeomGrid.load_DREAM3D(path, feature_IDs="Phases")
    assert np.array_equal(grid.material.T, run.phase + 1) and np.allclose(grid.size, (7, 6, 5))
    import h5py

    with h5py.File(path) as file:
        ensemble = file["DataContainers/ImageDataContainer/CellEnsembleData"]
        assert [name.decode() for name in ensemble["PhaseName"]] == ["Unknown", "phase 0", "phase 1"]
    from vtkmodules.vtkIOXdmf2 import vtkXdmfReader  # pyvista's own wants a series in time

    reader = vtkXdmfReader()
    reader.SetFileName(str(path.with_suffix(".xdmf")))
    reader.Update()
    image = pyvista.wrap(reader.GetOutputDataObject(0))
    assert np.allclose(image.bounds, (0, 7, 0, 6, 0, 5))
    assert np.array_equal(image.cell_data["Phases"].reshape(SHAPE), run.phase + 1)


@pytest.mark.parametrize("smoothing", [0, 0.6])
@pytest.mark.parametrize("form", ["stl", "ply"])
@pytest.mark.usefixtures("small_slabs")
def test_surfaces_are_closed(run: Run, tmp_path: Path, form: str, smoothing: float) -> None:
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / f"a.{form}"
    mcrdist.export(
        run={"dir": run.path}, format=form, output={"path": path, "smoothing": smoothing}, volume={"phase": 0}
    )
    # STL has no shared vertices: trimesh merges those that are equal to the last digit.
    mesh = trimesh.load(path, process=form == "stl")
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert np.allclose(mesh.bounds, [[0, 0, 0], [7, 6, 5]], atol=1e-6)
    assert mesh.volume == pytest.approx((run.phase == 0).sum() * 0.25**3, rel=0.03)


def test_surfaces_do_not_depend_on_the_slabs(run: Run) -> None:
    volume = open_source(VolumeSourceConfig(run=str(run.path)))
    found = []
    for planes in (1, 4, 7, 100):
        welder = Welder()
        welded = [welder.weld(piece) for piece in pieces(volume, 1, 0.9, planes)]
        vertices = np.concatenate([v for v, _ in welded])
        triangles = np.concatenate([t for _, t in welded])
        assert len(vertices) == welder.count == triangles.max() + 1
        found.append((len(vertices), len(triangles), np.sort(vertices[triangles].sum((1, 2)))))
    for vertices, triangles, sums in found[1:]:
        assert (vertices, triangles) == found[0][:2]
        assert np.allclose(sums, found[0][2], atol=1e-3)


def test_meshes(run: Run, tmp_path: Path) -> None:
    meshio = pytest.importorskip("meshio")
    path = exported(run, "abaqus", tmp_path)
    elements = [line for line in path.read_text().splitlines() if line.upper().startswith("*ELEMENT")]
    assert elements == ["*ELEMENT, TYPE=C3D8"]
    mesh = meshio.read(path)
    (block,) = mesh.cells
    assert block.type == "hexahedron" and len(block.data) == run.phase.size
    for label in (0, 1):
        members = mesh.cell_sets[f"PHASE{label}"][0]
        assert len(members) == (run.phase == label).sum()
        centres = mesh.points[block.data[members]].mean(1) / 0.25
        z, y, x = np.floor(centres).astype(int).T[::-1]
        assert (run.phase[z, y, x] == label).all()
    corners = mesh.points[block.data]
    edges = corners[:, [1, 3, 4]] - corners[:, :1]
    assert np.allclose(np.linalg.det(edges), 0.25**3)  # right-handed
    for form in ("vtu", "gmsh"):
        (tmp_path / form).mkdir()
        mesh = meshio.read(exported(run, form, tmp_path / form, phase=1))
        assert len(mesh.cells[0].data) == (run.phase == 1).sum()
        assert len(np.unique(mesh.cells[0].data)) == len(mesh.points)
        data = mesh.cell_data["material" if form == "vtu" else "gmsh:physical"][0]
        assert set(data) == {1 if form == "vtu" else 2}
        assert form == "vtu" or {k: v.tolist() for k, v in mesh.field_data.items()} == {"phase 1": [2, 3]}


def test_levels_and_phases_of_a_run(tmp_path: Path) -> None:
    run = build(tmp_path / "large", (16, 80, 72), width=(2, 2, 2), lags=5, levels=1, micrograph=32)
    small = open_source(VolumeSourceConfig(run=str(run.path), level=1))
    assert (
        small.shape == (8, 40, 36) and small.voxel_size == (0.5, 0.5, 0.5) and small.name == "level-1-phase"
    )
    with pytest.raises(InputError, match=r"volume.level: expected an integer of at most 1"):
        open_source(VolumeSourceConfig(run=str(run.path), level=2))
    three = build_phases(tmp_path / "three")
    share = open_source(VolumeSourceConfig(run=str(three.path), image="field", phase=2))
    assert np.array_equal(share.read(3, 9), (three.phase[3:9] == 2).astype(np.float32))
    with pytest.raises(InputError, match=r"volume.phase: expected one of the phases of .*0, 1, 2, found 3"):
        open_source(VolumeSourceConfig(run=str(three.path), image="field", phase=3))


def test_a_field_is_the_share_of_the_phase_that_is_asked_for(run: Run, tmp_path: Path) -> None:
    def share(of: Run, phase: int | None) -> Any:
        return open_source(VolumeSourceConfig(run=str(of.path), image="field", phase=phase)).read(3, 9)

    for phase, wanted in ((None, run.field), (1, run.field), (0, 1 - run.field)):
        assert np.array_equal(share(run, phase), wanted[3:9])
    with pytest.raises(InputError, match=r"volume.phase: expected one of the phases of .*0, 1, found 2"):
        share(run, 2)
    odd = build_phases(tmp_path / "odd")
    targets = dict(odd.targets)
    np.savez(
        odd.path / "targets.npz", **targets | {"phases": np.array([0, 3, 7])}
    )  # labels of three channels
    for phase, channel in ((0, 0), (3, 1), (7, 2), (None, 2)):
        assert np.array_equal(share(odd, phase), (odd.phase[3:9] == channel).astype(np.float32))


@pytest.mark.parametrize("form", ["stl", "ply"])
def test_surfaces_of_a_field_enclose_the_phase(run: Run, form: str, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    volumes = []
    for phase in (0, 1):
        (tmp_path / str(phase)).mkdir()
        path = exported(run, form, tmp_path / str(phase), image="field", phase=phase)
        volumes.append(trimesh.load(path, process=form == "stl").volume / 0.25**3)
    assert volumes == pytest.approx([(run.phase == phase).sum() for phase in (0, 1)], rel=0.06)
    np.save(tmp_path / "field.npy", run.field)  # a file of such numbers is taken for one
    volume = {"path": tmp_path / "field.npy", "phase": 0, "voxel_size": 0.25, "unit": "um"}
    (path,) = mcrdist.export(volume=volume, format=form)
    assert path.read_bytes() == (tmp_path / "0" / f"a.{form}").read_bytes()


def test_memory_does_not_grow_with_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SLAB", 2**15)
    peaks: dict[str, list[int]] = {}
    for planes in (32, 128):
        field = smooth_field((32, 32, 32), (3, 3, 3), 0.4, 0)
        np.save(tmp_path / f"{planes}.npy", np.tile((field > 0.5).astype(np.uint8), (planes // 32, 1, 1)))
        for form in ("tiff", "npy", "raw", "vti", "hdf5", "stl", "ply"):
            tracemalloc.start()
            mcrdist.export(
                volume={"path": tmp_path / f"{planes}.npy"}, format=form, output={"path": None}
            ) if (form != "npy") else mcrdist.export(
                volume={"path": tmp_path / f"{planes}.npy"},
                format=form,
                output={"path": tmp_path / f"copy{planes}.npy"},
            )
            peaks.setdefault(form, []).append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    for form, (small, large) in peaks.items():
        assert large < 1.3 * small + 2**16, form


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("form", ["npy", "tiff", "vti", "hdf5"])
def test_memory_of_a_process(tmp_path: Path, form: str) -> None:
    """Four times the planes, 96 MB more: the process takes no more than 24 MB more."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from memory import resident;"
        "import mcrdist; from mcrdist.store import source; source.SLAB = 2**23;"
        "mcrdist.export(volume={'path': sys.argv[1]}, format=sys.argv[2], output={'path': sys.argv[3]});"
        "print(resident('VmHWM') // 2**20)"
    )
    suffix = {"tiff": "tif", "hdf5": "dream3d"}.get(form, form)
    peaks = []
    for planes in (128, 512):
        np.lib.format.open_memmap(tmp_path / f"{planes}.npy", "w+", np.uint8, (planes, 512, 512)).flush()
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                tmp_path / f"{planes}.npy",
                form,
                tmp_path / f"out{planes}.{suffix}",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 24, peaks


def test_nothing_is_overwritten_and_nothing_is_left(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(InputError, match=r"output.path: expected a new file, found the file .*a\.json"):
        mcrdist.export(run={"dir": run.path}, format="raw", output={"path": tmp_path / "a.raw"})
    assert (tmp_path / "a.json").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match=r"volume.phase: expected a phase of .*, found no voxel of 7"):
        mcrdist.export(
            run={"dir": run.path}, format="ply", output={"path": tmp_path / "a.ply"}, volume={"phase": 7}
        )
    assert len(list(tmp_path.iterdir())) == 1


def test_exports_of_several_phases_lie_side_by_side(tmp_path: Path) -> None:
    run = build_phases(tmp_path / "three")
    for phase, name in ((1, "phase-1.stl"), (2, "phase-2.stl"), (None, "phase.stl")):
        (path,) = mcrdist.export(run={"dir": run.path}, format="stl", volume={"phase": phase})
        assert path == run.path / "export" / name
    raw, meaning = mcrdist.export(run={"dir": run.path}, format="raw", volume={"image": "field", "phase": 2})
    assert raw.name == "field-2.raw" and json.loads(meaning.read_text())["content"] == "field-2"
    np.save(tmp_path / "ct.npy", run.phase)
    (path,) = mcrdist.export(volume={"path": tmp_path / "ct.npy", "phase": 2}, format="stl")
    assert path == tmp_path / "ct-2.stl"


def test_an_interrupted_run_is_not_exported(tmp_path: Path) -> None:
    run = build(tmp_path / "run", (16, 16, 16), width=(1, 1, 1), lags=5, levels=1, micrograph=24)
    zarr.open_array(run.path / "volume.zarr/phase/0", mode="r+")[8:] = 255
    with pytest.raises(InputError, match="not written; the run was interrupted"):
        mcrdist.export(run={"dir": run.path}, format="npy")
    assert not list((run.path / "export").iterdir())


WRONG = [
    ({}, "run.dir: expected a run directory, found nothing"),
    ({"run": {"dir": "here"}, "volume": {"path": "a.npy"}}, "volume.path: expected null with run.dir='here'"),
    ({"volume": {"path": "absent.tif"}}, "volume.path: expected a volume, found nothing at absent.tif"),
    ({"volume": {"path": "text.npy"}}, "text.npy: expected an OME-Zarr image, a TIFF stack or npy"),
    ({"volume": {"path": "flat.npy"}}, r"flat.npy: expected numbers \(nz, ny, nx\), found 4x4 uint8"),
    ({"volume": {"path": "rgb.tif"}}, "rgb.tif: expected a stack .* of one grey channel, found 3x4x5x3"),
    ({"volume": {"path": "empty"}}, "found a directory of others"),
    ({"volume": {"path": "cube.npy", "level": 1}}, "volume.level: expected 0 for a volume without a pyramid"),
    ({"volume": {"path": "cube.npy", "image": "field"}}, "volume.image: expected phase without run.dir"),
    (
        {"volume": {"path": "cube.npy"}, "output": {"path": "a.vtk"}},
        "output.path: expected a name that ends in .tif",
    ),
    (
        {"volume": {"path": "cube.npy", "phase": 1}},
        r"volume.phase: expected nothing \(null\) with format=tiff, .*, found 1; .*=stl, ply, abaqus, vtu or gmsh",
    ),
    (
        {"volume": {"path": "cube.npy"}, "output": {"smoothing": 3}},
        r"output.smoothing: expected its default \(0.6\) with format=tiff, .* found 3; .* format=stl or ply",
    ),
]


@pytest.mark.parametrize(("settings", "said"), WRONG, ids=[said[:24] for _, said in WRONG])
def test_mistakes(
    settings: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.npy").write_text("no array")
    Path("empty").mkdir()
    np.save("flat.npy", np.zeros((4, 4), np.uint8))
    np.save("cube.npy", np.zeros((4, 4, 4), np.uint8))
    tifffile.imwrite("rgb.tif", np.zeros((3, 4, 5, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match=said):
        mcrdist.export(format="tiff", **settings)
    with pytest.raises(InputError, match="format: expected one of tiff, npy"):
        mcrdist.export(volume={"path": "cube.npy"})


def test_command(run: Run, tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mcrdist", "export", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
        )

    target = tmp_path / "a.vti"
    arguments = [f"run.dir={run.path}", "format=vti", f"output.path={target}"]
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (0, f"export {target}\n")
    again = command(*arguments)
    assert again.returncode == 2 and again.stdout == "" and "expected a new file" in again.stderr
    wrong = command(f"run.dir={run.path}", "format=docx")
    assert (
        wrong.returncode == 2
        and f"format: expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}" in wrong.stderr
    )
