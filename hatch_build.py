"""The build's own step: compile the native kernels where a C++ compiler is, and go on without them where none is."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = "src/qwen2_audio/native/build.py"  # by path: the package itself needs torch, which a build has not


class NativeKernels(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        spec = importlib.util.spec_from_file_location("qwa_build", Path(self.root) / BUILD)
        assert spec is not None and spec.loader is not None
        builder = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = builder
        spec.loader.exec_module(builder)
        try:
            library = builder.build()
        except builder.BuildError as error:
            self.app.display_warning(f"The native kernels were not built, torch will compute instead: {error}")
            return
        build_data["artifacts"].append(library.relative_to(self.root).as_posix())
        build_data["pure_python"] = False
        # Plain C behind ctypes: any Python 3 on this platform.
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
