"""Image sets: benchmarks by name, your own images, and biases drawn into them.

| question | module |
|---|---|
| Load a benchmark by name | `benchmarks`, with its `recipes` |
| Use your own images | `datasets` (arrays), `folders` (files), `builders` (tensorflow-datasets) |
| Look for duplicates and properties of files | `duplicates`, `file_checks` |
| Bias an image set | `bias` assigns attributes, `rendering` and `corruptions` draw them |
| Read and write files of a run | `files` |
"""
