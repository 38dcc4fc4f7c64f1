"""The engine: Faust's runtime with its per-message path replaced by slices and atomic commits."""
