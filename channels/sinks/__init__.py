"""One module per kind of export sink."""
