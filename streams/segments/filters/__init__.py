"""One file per filter; each exports one `FILTER`."""
