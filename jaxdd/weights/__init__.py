"""How are real samples weighted?

Weights `[n]` are at least 0 and sum to one within each class. Every function here takes a pool
(`jaxdd.sampling.Pool`) and returns such weights, or a NamedTuple that contains them as `weights`:

* `by_density`: inverse density in the embedding of a contrastive encoder, without bias labels;
* `by_features`: balanced bias groups as object-blind features show them, for a known kind of bias;
* `by_candidate`: the same for features named by a candidate, or for an embedding;
* `choose`: chooses between all of these and uniform weights, without bias labels;
* `from_labels`: groups shown by features that a few bias labels select; `to_label` returns the
  samples to label;
* `from_density`, `from_probabilities`: weights from your own densities or classifier;
* `oracle`: balanced bias groups from the bias labels of all samples.

The formulas are in `jaxdd.weights.formulas`. Use the weights with `sampling.reweight(pool, w)`.
"""

from jaxdd.weights import blind_features as blind_features
from jaxdd.weights import contrastive as contrastive
from jaxdd.weights import formulas as formulas
from jaxdd.weights import probes as probes
from jaxdd.weights.candidates import Candidate as Candidate
from jaxdd.weights.candidates import by_candidate as by_candidate
from jaxdd.weights.candidates import feature_probabilities as feature_probabilities
from jaxdd.weights.choice import Choice as Choice
from jaxdd.weights.choice import choose as choose
from jaxdd.weights.choice import pseudo_groups as pseudo_groups
from jaxdd.weights.density_weights import Density as Density
from jaxdd.weights.density_weights import DensityWeights as DensityWeights
from jaxdd.weights.density_weights import Search as Search
from jaxdd.weights.density_weights import by_density as by_density
from jaxdd.weights.density_weights import default_encoder as default_encoder
from jaxdd.weights.density_weights import density as density
from jaxdd.weights.density_weights import density_candidates as density_candidates
from jaxdd.weights.density_weights import encode as encode
from jaxdd.weights.density_weights import from_density as from_density
from jaxdd.weights.density_weights import oracle as oracle
from jaxdd.weights.feature_weights import FeatureWeights as FeatureWeights
from jaxdd.weights.feature_weights import by_feature_sets as by_feature_sets
from jaxdd.weights.feature_weights import by_features as by_features
from jaxdd.weights.feature_weights import from_probabilities as from_probabilities
from jaxdd.weights.feature_weights import is_shortcut as is_shortcut
from jaxdd.weights.feature_weights import shortcuts as shortcuts
from jaxdd.weights.label_weights import LabelWeights as LabelWeights
from jaxdd.weights.label_weights import from_labels as from_labels
from jaxdd.weights.label_weights import to_label as to_label
from jaxdd.weights.probe_networks import Trial as Trial
from jaxdd.weights.probe_networks import check_with_probe_networks as check_with_probe_networks
from jaxdd.weights.probe_networks import rejection as rejection
