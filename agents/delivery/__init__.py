"""Delivery: a send is rendered, recorded, attempted, and its outcome told; the only writer of dispatches."""
