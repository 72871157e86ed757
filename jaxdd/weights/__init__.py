"""How are real samples weighted?

Weights `[n]` are at least 0 and sum to one within each class. Every function here takes a pool
(`jaxdd.sampling.Pool`) and returns such weights, or a NamedTuple that contains them as `weights`:

* `by_density`: inverse density in the embedding of a contrastive encoder, without bias labels;
* `by_features`: balanced bias groups as object-blind features show them, for a known kind of bias;
* `choose`: chooses between the two and uniform weights, without bias labels;
* `from_density`, `from_probabilities`: weights from your own densities or classifier;
* `oracle`: balanced bias groups by bias labels.

The formulas are in `jaxdd.weights.formulas`. Use the weights with `sampling.reweight(pool, w)`.
"""

from jaxdd.weights import blind_features, contrastive, formulas, probes
from jaxdd.weights.choice import (
    MIN_CONFLICTING,
    Choice,
    ProbeCheck,
    Search,
    Trial,
    check_with_probe_networks,
    choose,
    density_candidates,
    pseudo_groups,
    rejection,
)
from jaxdd.weights.density_weights import (
    Density,
    DensityWeights,
    Encoded,
    by_density,
    default_encoder,
    densities,
    density,
    encode,
    from_density,
    from_encoded,
    oracle,
)
from jaxdd.weights.feature_weights import (
    MIN_ACCURACY_GAIN,
    MIN_Z_SCORE,
    FeatureWeights,
    by_feature_sets,
    by_features,
    from_probabilities,
    is_shortcut,
    shortcuts,
)

__all__ = [
    "MIN_ACCURACY_GAIN",
    "MIN_CONFLICTING",
    "MIN_Z_SCORE",
    "Choice",
    "Density",
    "DensityWeights",
    "Encoded",
    "FeatureWeights",
    "ProbeCheck",
    "Search",
    "Trial",
    "blind_features",
    "by_density",
    "by_feature_sets",
    "by_features",
    "check_with_probe_networks",
    "choose",
    "contrastive",
    "default_encoder",
    "densities",
    "density",
    "density_candidates",
    "encode",
    "formulas",
    "from_density",
    "from_encoded",
    "from_probabilities",
    "is_shortcut",
    "oracle",
    "probes",
    "pseudo_groups",
    "rejection",
    "shortcuts",
]
