"""One thin module a command; each has ``run(overrides) -> exit status``."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

from mcrdist.commands.terminal import say
from mcrdist.errors import InputError

VERBS = {
    "reconstruct": "make a volume from a micrograph, or from one a direction",
    "characterize": "write the statistics of a micrograph, with a picture of them",
    "analyze": "measure a volume: what was prescribed, and what was not",
    "report": "make a run's report again, or compare several runs in one page",
    "view": "look at a volume in a browser: slices and surfaces",
    "export": "write a volume in the format of another program",
    "plan": "tell what a run would need: memory, network, time, disk",
    "verify": "read everything that a run has written, and say what is broken where",
    "weights": "get the network that Gram matrices need, once, and keep it",
    "doctor": "check versions, devices, memory, disk, and two processes talking to each other",
}
CONFIGURED = tuple(verb for verb in VERBS if verb != "doctor")  # verbs with a conf/VERB.yaml
TOGETHER = ("reconstruct", "characterize")  # verbs that several processes may be started for
MULTIRUN = ("-m", "--multirun")  # options of reconstruct: a run for every combination of values

_EXAMPLES = {
    "reconstruct": """\
  mcrdist reconstruct micrograph.path=sem.tif volume.size=128 run.dir=out seed=0
  mcrdist reconstruct micrograph.path=side.tif micrograph.z.path=top.tif volume.shape=[96,128,160]
  mcrdist reconstruct +experiment=quick micrograph.path=synthetic:gaussian
  mcrdist reconstruct micrograph.path=sem.tif volume.size=64 seed=0,1,2,3 -m run.dir=ensemble
  torchrun --nproc-per-node 2 -m mcrdist reconstruct micrograph.path=sem.tif volume.size=256 run.dir=big
  mcrdist reconstruct run.dir=big resume=true""",
    "characterize": """\
  mcrdist characterize micrograph.path=sem.tif run.dir=out""",
    "plan": """\
  mcrdist plan volume.size=512
  mcrdist plan volume.size=2048 ranks=64 device=h100
  mcrdist plan volume.size=1024 ranks=4 threads=8 hardware.memory=32GiB hardware.network=12.5e9""",
    "verify": """\
  mcrdist verify run.dir=out""",
    "analyze": """\
  mcrdist analyze run.dir=out
  mcrdist analyze volume.path=ct.tif volume.phase=1 output.dir=ct_analysis
  mcrdist analyze run.dir=out dask.scheduler=tcp://node1:8786""",
    "report": """\
  mcrdist report run.dir=out report.figures=pdf
  mcrdist report run.dir=a,b,c output.path=comparison.html""",
    "view": """\
  mcrdist view run.dir=out
  mcrdist view volume.path=ct.tif port=8080""",
    "export": """\
  mcrdist export run.dir=out format=vti
  mcrdist export run.dir=out format=stl volume.phase=1 output.path=pores.stl
  mcrdist export volume.path=ct.tif volume.voxel_size=0.5 format=hdf5""",
    "weights": """\
  mcrdist weights
  mcrdist weights weights.source=torchvision
  mcrdist weights weights.source=vgg19.pth""",
    "doctor": """\
  mcrdist doctor""",
}


def usage() -> str:
    """Return the text of ``mcrdist --help``."""
    verbs = "\n".join(f"  {verb:<14}{summary}" for verb, summary in VERBS.items())
    return f"""\
mcrdist: trustworthy 3-D microstructures from 2-D micrographs

usage: mcrdist COMMAND [key=value ...] [-m] [--cfg | --help]

commands:
{verbs}

options:
  --help        this text; after a command, its settings with their meaning
  --cfg         after a command: print the settings that would be used, and stop
  -m            after reconstruct: a run for every combination of values, seed=0,1,2,3
  --version     print the version

examples:
{_EXAMPLES["reconstruct"]}"""


def help_for(verb: str) -> str:
    """Return the text of ``mcrdist VERB --help``: the settings, with the comments of the file."""
    text = f"mcrdist {verb}: {VERBS[verb]}\n\nexamples:\n{_EXAMPLES[verb]}"
    if verb not in CONFIGURED:
        return text
    from mcrdist.commands.compose import conf_dir, experiments

    groups = (
        f"\n\nexperiments (+experiment=NAME): {', '.join(experiments())}" if verb == "reconstruct" else ""
    )
    settings = (conf_dir() / f"{verb}.yaml").read_text(encoding="utf-8").rstrip()
    return f"{text}{groups}\n\nsettings:\n\n{settings}"


def _check_alone(verb: str) -> None:
    """Refuse to do the same work several times over, in each process that a launcher has started."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if verb not in TOGETHER and processes != "1":
        more = "; on several machines: launch/dask.sbatch" if verb == "analyze" else ""
        raise InputError(
            f"{verb}: expected one process, found {processes} (WORLD_SIZE), each of which would do all of it; start "
            f"it without torchrun or srun{more}"
        )


def run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Run one command with its overrides and options."""
    options = [argument for argument in arguments if argument.startswith("-")]
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    for option in options:
        if option not in ("-h", "--help", "--cfg", *(MULTIRUN if verb == "reconstruct" else ())):
            raise InputError(f"{option}: unknown option; see mcrdist {verb} --help")
    if "-h" in options or "--help" in options:
        say(help_for(verb))
        return 0
    if verb not in CONFIGURED and (overrides or options):
        raise InputError(f"{(overrides + options)[0]}: {verb} takes no settings; e.g. mcrdist {verb}")
    several = any(option in MULTIRUN for option in options)
    if verb == "reconstruct":
        from mcrdist.commands import multirun

        if several and "--cfg" in options:
            say(multirun.configurations(overrides))
            return 0
        if several or ("--cfg" not in options and multirun.goes_on(overrides)):
            return multirun.run(overrides)
    if "--cfg" in options:
        from mcrdist.commands.compose import as_yaml

        say(as_yaml(verb, overrides))
        return 0
    _check_alone(verb)
    status: int = importlib.import_module(f"mcrdist.commands.{verb}").run(overrides)
    return status
