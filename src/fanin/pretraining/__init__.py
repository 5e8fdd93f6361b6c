"""Generative pre-training: Boltzmann machines and autoencoders, trained layer by layer, and networks made of them.

How good a Boltzmann machine is, exactly or by annealing: fanin.pretraining.likelihood.
"""

from fanin.pretraining.autoencoder import StackedAutoencoder as StackedAutoencoder
from fanin.pretraining.boltzmann.rbm import RBM as RBM
from fanin.pretraining.dbn import DBN as DBN
from fanin.pretraining.divergence import DivergedError as DivergedError
from fanin.pretraining.pretrain import pretrain_ as pretrain_
from fanin.pretraining.saving import load_stack as load_stack
from fanin.pretraining.saving import save_stack as save_stack
