"""Training in PyTorch alone on a set that `jaxdd export RUN DIR --format pt` wrote."""

import numpy as np
import torch


def main(path, test_pixels, test_labels, *, seeds=3, epochs=400, width=128):
    """Return the accuracy of networks trained on synthetic.pt; test pixels are in [0, 1]."""
    content = torch.load(path)  # tensors, lists and numbers: no code is run
    images, labels = content["data"][0]  # normalised float32 [n, c, h, w], int64 [n]
    test = (np.asarray(test_pixels) - content["mean"]) / content["std"]
    test = torch.tensor(test, dtype=torch.float32).permute(0, 3, 1, 2)
    sizes = [images[0].numel(), width, width, len(content["classes"])]
    accuracies = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        layers = [torch.nn.Flatten()]
        for before, after in zip(sizes, sizes[1:], strict=False):
            layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
        network = torch.nn.Sequential(*layers[:-1])
        optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, epochs // 2 + 1)
        for _ in range(epochs):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()
        accuracies.append((network(test).argmax(1) == torch.tensor(test_labels)).float().mean())
    return float(np.mean(accuracies))
