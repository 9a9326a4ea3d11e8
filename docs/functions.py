"""For mkdocstrings: the functions of the package `mcrdist`, several of which have the names of modules.

Read as source, the module `mcrdist.reconstruct` hides the function (at run time it is the other way round). So the
functions are shown as those of a module `mcrdist.functions`, which exists in the documentation alone.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class Functions(griffe.Extension):
    """Adds the module of functions to the package once that is loaded."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        if pkg.name != "mcrdist":
            return
        assert not isinstance(pkg.filepath, list)
        code = pkg.filepath.read_text(encoding="utf-8")
        functions = griffe.visit(
            "functions",
            pkg.filepath,
            code,
            docstring_parser=loader.docstring_parser,
            docstring_options=loader.docstring_options,
        )
        functions.docstring = None  # that of the package
        for function in functions.functions.values():
            if function.docstring is not None:  # the roles of another markup
                function.docstring.value = re.sub(r":(func|class|meth):", "", function.docstring.value)
        pkg.set_member("functions", functions)
