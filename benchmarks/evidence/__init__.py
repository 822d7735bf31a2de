"""What pre-training gains, with intervals: arms, their checkpoints, the runs, the statistics, tables and pictures.

``benchmarks.label_efficiency`` compares pretexts and models, ``benchmarks.ablations`` the parts of MoCo.
"""
