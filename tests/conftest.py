"""Until mcrdist.descriptors is there: plain NumPy in its place, for the tests of the analysis only."""

import importlib.util
import sys
import types

if importlib.util.find_spec("mcrdist.descriptors") is None:
    import fake_run

    for name, content in (
        ("descriptors", {"__path__": []}),
        ("descriptors.correlation", {"two_point": fake_run.two_point}),
        ("descriptors.variation", {"variation": fake_run.variation}),
    ):
        module = types.ModuleType(f"mcrdist.{name}")
        vars(module).update(content)
        sys.modules[module.__name__] = module
