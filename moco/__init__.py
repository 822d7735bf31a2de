"""SITS-MoCo: momentum contrast (He et al. 2020, Chen et al. 2020) on satellite image time series (Xu et al. 2024)."""
