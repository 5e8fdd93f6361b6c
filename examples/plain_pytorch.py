"""Take a trained network out as plain PyTorch and go on with it: no fanin needed from there on."""

from pathlib import Path

import torch

import fanin

folder = Path("runs/plain-pytorch")
fanin.run(fanin.find("lab9/softmax"), data="digits", out=folder, seeds=1)

digits = fanin.load("digits")
inputs = torch.from_numpy(digits.test.inputs).float() * digits.scale
labels = torch.from_numpy(digits.test.labels)

for file in sorted((folder / "weights").glob("*.safetensors")):
    network, metadata = fanin.load_weights(file)  # an nn.Sequential in evaluation mode
    with torch.no_grad():
        accuracy = (network(inputs).argmax(1) == labels).float().mean()
    print(file.name, network, f"accuracy {accuracy:.4f}", f"seed {metadata['seed']}", sep="\n  ")
