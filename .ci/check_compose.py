"""Checks deploy/compose.yaml against the Compose Specification; needs the package compose-spec."""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from compose_spec import PyCompose
from deployed import composed

file = PyCompose.from_json(json.dumps(composed()))
file.validate()
print(f"deploy/compose.yaml is valid: {', '.join(file.service_names())}")
