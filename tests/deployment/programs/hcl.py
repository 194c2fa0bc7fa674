"""The blocks of Terraform files as JSON, by checkov's parser, which is in .venv-deployment.

The argument is a folder. The answer is an object of what hcl2 makes of each file, by its name.
"""

import json
import sys
from pathlib import Path

import hcl2

json.dump(
    {path.name: hcl2.loads(path.read_text()) for path in sorted(Path(sys.argv[1]).glob("*.tf"))},
    sys.stdout,
)
