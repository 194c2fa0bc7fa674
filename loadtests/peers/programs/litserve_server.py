"""LitServe around ``rembg.remove``: ``litserve_server.py MODEL PORT WORKERS``."""

import sys

import litserve
import rembg
from fastapi import Response


class LitServeRemover(litserve.LitAPI):
    """A LitServe API that takes the file of a form and returns a PNG."""

    def setup(self, device: str) -> None:
        """Load the model. LitServe calls this once in each worker."""
        self.session = rembg.new_session("u2net_custom", model_path=sys.argv[1])

    # Without an annotation, because LitServe would take it for a query parameter's type.
    def decode_request(self, request) -> bytes:  # noqa: ANN001
        """Return the file of the form."""
        data: bytes = request["file"].file.read()
        return data

    def predict(self, data: bytes) -> bytes:
        """Return the cut-out of an image."""
        return bytes(rembg.remove(data, session=self.session))

    def encode_response(self, png: bytes) -> Response:
        """Return the response with the cut-out."""
        return Response(content=png, media_type="image/png")


if __name__ == "__main__":
    server = litserve.LitServer(
        LitServeRemover(), accelerator="cpu", workers_per_device=int(sys.argv[3]), timeout=120
    )
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
