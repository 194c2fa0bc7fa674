"""LitServe around ``rembg.remove``: ``litserve_server.py MODEL PORT WORKERS``."""

import sys

import litserve
import rembg
from fastapi import Response


class Remover(litserve.LitAPI):
    """Takes the file of a form, gives back a PNG."""

    def setup(self, device: str) -> None:
        """Load the model, once in each worker."""
        self.session = rembg.new_session("u2net_custom", model_path=sys.argv[1])

    # LitServe would take an annotation for the type of a query parameter.
    def decode_request(self, request) -> bytes:  # noqa: ANN001
        """Return the file."""
        data: bytes = request["file"].file.read()
        return data

    def predict(self, data: bytes) -> bytes:
        """Return its cut-out."""
        return bytes(rembg.remove(data, session=self.session))

    def encode_response(self, png: bytes) -> Response:
        """Return it as a response."""
        return Response(content=png, media_type="image/png")


if __name__ == "__main__":
    server = litserve.LitServer(
        Remover(), accelerator="cpu", workers_per_device=int(sys.argv[3]), timeout=120
    )
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
