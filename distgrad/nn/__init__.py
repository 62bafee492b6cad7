"""Modules, layers, losses and initialisation, with the meaning of ``torch.nn``."""
