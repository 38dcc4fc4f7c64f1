"""The tests mirror the folders of the product; the harnesses stand beside them."""
