"""Readers of the Arrow tables that ViLT, METER and BridgeTower use."""
