"""The model: image and text towers, bridges, cross-modal layers, heads.

Read `backbone.py` first, then `towers.py`, `bridges.py` with one class for
each bridge of the paper, `cross_modal.py`, `fusion.py`, and `heads.py`.
"""
