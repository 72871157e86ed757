"""A Flax NNX network in the whole pipeline: weights, distillation, scores, run folder.

python -m experiments.examples.own_network
"""

import jax
from flax import nnx

from jaxdd import networks
from jaxdd.data import benchmarks
from jaxdd.runs import options, pipeline, results


class Small(nnx.Module):
    """One convolution, pooled to two by two."""

    def __init__(self, rngs: nnx.Rngs):
        self.convolution = nnx.Conv(3, 32, (5, 5), rngs=rngs)
        self.head = nnx.Linear(2 * 2 * 32, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        pooled = nnx.avg_pool(nnx.relu(self.convolution(images)), (8, 8), (8, 8))
        features = pooled.reshape(len(images), -1)
        return features, self.head(features)


GRAPH = nnx.graphdef(nnx.eval_shape(lambda: Small(nnx.Rngs(0))))
NETWORK = networks.Functions(
    init=lambda key, images: nnx.state(Small(nnx.Rngs(key))),
    apply=lambda params, images: nnx.merge(GRAPH, params)(images),
)


def main(folder: str = "own-network", **fields: int) -> results.Result:
    """Distil coloured digits into a folder; `fields` are options such as steps."""
    data = benchmarks.load("cdigits", conflict=0.1)
    return pipeline.run(data, folder, options.DM(**fields), debias="density", network=NETWORK)


if __name__ == "__main__":
    print(f"accuracy {main().accuracy.mean:.3f}")
