"""Write the embedded model's ``spec.json``: its fingerprint, its check vectors and its files' checksums.

Run it once after the weights in ``mmsearch/encoders/weights/mini`` have changed::

    python benchmarks/make_card.py
"""

from __future__ import annotations

import json

import numpy as np

from mmsearch.encoders import card_of
from mmsearch.encoders.builtin import RERANKER_FILE, SPEC_FILE, WEIGHTS_FILE, mini_folder
from mmsearch.encoders.onnx import file_digest
from mmsearch.encoders.openclip import load_openclip


def main() -> None:
    """Load the weights through open_clip in fp32 on the CPU and store what they give."""
    folder = mini_folder()
    card = card_of("mini")
    encoder = load_openclip("mini", card.licence, device="cpu", precision="fp32", source=f"local-dir:{folder}")
    texts, images = encoder.check_vectors()
    stored = {
        "spec": encoder.spec.to_json(),
        "sha256": {name: file_digest(folder / name) for name in (WEIGHTS_FILE, RERANKER_FILE, "open_clip_config.json")},
        "check_texts": np.round(texts, 6).tolist(),
        "check_images": np.round(images, 6).tolist(),
    }
    (folder / SPEC_FILE).write_text(json.dumps(stored) + "\n", "utf-8")
    print(encoder.fingerprint)


if __name__ == "__main__":
    main()
