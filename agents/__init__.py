"""Who does it: one Faust agent per file, the engine below them, the web and the commands beside them."""
